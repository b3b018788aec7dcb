"""Measures local publish -> subscriber over the IPC with the unmodified official client, each side its own process.

    .venv/bin/python -m tools.bench_ipc                                 a server of its own
    .venv/bin/python -m tools.bench_ipc SOCKET TOKEN_A TOKEN_B          a running daemon; both may publish and subscribe

Method: 100-byte binary messages, in batches of 200 with at most two batches without answer; the rate is that of the
messages which arrive at the subscriber, from the first to the last, after a warm-up. Each one must arrive. The clients'
CPU is the limit (spec/ipc.md 4.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COUNT = 30_000
WARM_UP = 2_000
WINDOW = 200  # publishes in a batch; divides COUNT and WARM_UP
TOPIC = "bench/ipc"
_DEADLINE_S = 60.0


def measure(socket_path: str, token_a: str, token_b: str, count: int = COUNT) -> float:
    """Messages per second from a publisher with `token_a` to a subscriber with `token_b`.

    Raises RuntimeError with the client's words when one of them fails or a message is lost.
    """
    with _client("subscribe", socket_path, token_b, count) as subscriber:
        _expect(subscriber, "ready")
        with _client("publish", socket_path, token_a, count) as publisher:
            _expect(publisher, "done")
        return count / float(_expect(subscriber, "seconds"))


def stand_alone(count: int = COUNT) -> float:
    """The same against a server in a process of its own, with the real broker and authorization."""
    with tempfile.TemporaryDirectory(prefix="bench-ipc-") as folder:
        path = str(Path(folder) / "ipc.socket")
        with _process("serve", path) as served:
            _expect(served, "ready")
            try:
                return measure(path, "token-publisher", "token-subscriber", count)
            finally:
                served.terminate()


# ---- processes -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tools.bench_ipc", *arguments]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield process
        finally:
            process.kill()


def _client(role: str, *arguments: Any) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return _process(role, *(str(argument) for argument in arguments))


def _expect(process: subprocess.Popen[str], word: str) -> str:
    """The rest of the line that begins with `word`; the process is killed when it takes too long."""
    timer = threading.Timer(_DEADLINE_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
    finally:
        timer.cancel()
    if not line.startswith(word):
        raise RuntimeError(f"cannot measure: expected {word!r} from {process.args!r}, got {line!r}")
    return line.removeprefix(word).strip()


def _say(text: str) -> None:
    print(text, flush=True)


# ---- the two clients -------------------------------------------------------------------------------------------------------


def _connect(socket_path: str, token: str) -> Any:
    import awsiot.greengrasscoreipc
    from awsiot.greengrasscoreipc import clientv2

    low = awsiot.greengrasscoreipc.connect(ipc_socket=socket_path, authtoken=token, timeout=10)
    return clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)


def _subscribe(socket_path: str, token: str, count: int) -> None:
    client = _connect(socket_path, token)
    arrived = 0
    times: list[float] = []
    over = threading.Event()

    def count_one(_event: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived in (WARM_UP, WARM_UP + count):
            times.append(time.perf_counter())
        if arrived == WARM_UP + count:
            over.set()

    client.subscribe_to_topic(topic=TOPIC, on_stream_event=count_one)
    _say("ready")
    if not over.wait(_DEADLINE_S - 5):
        _say(f"only {arrived} of {WARM_UP + count} messages arrived")
        return
    _say(f"seconds {times[1] - times[0]}")
    client.close().result(10)


def _publish(socket_path: str, token: str, count: int) -> None:
    from awsiot.greengrasscoreipc import model

    client = _connect(socket_path, token)
    message = model.PublishMessage(binary_message=model.BinaryMessage(message=bytes(100)))
    before: list[Any] = []
    for _ in range((WARM_UP + count) // WINDOW):
        batch = [client.publish_to_topic_async(topic=TOPIC, publish_message=message) for _ in range(WINDOW)]
        for future in reversed(before):  # the last answer first: one wake-up for all of them
            future.result(10)
        before = batch
    for future in before:
        future.result(10)
    _say("done")
    client.close().result(10)


# ---- the server ------------------------------------------------------------------------------------------------------------


async def _serve(socket_path: str) -> None:
    from nucleus.ipc import connection
    from tests.nucleus import fakes_ipc

    world = fakes_ipc.World(Path(socket_path), connection.Limits())
    for name in ("publisher", "subscriber"):
        world.add(name, access=fakes_ipc.EVERYTHING)
    async with fakes_ipc.serving(world):
        _say("ready")
        await asyncio.Event().wait()  # until the process is ended


def main(arguments: list[str]) -> None:
    match arguments:
        case ["serve", path]:
            asyncio.run(_serve(path))
        case ["subscribe", path, token, count]:
            _subscribe(path, token, int(count))
        case ["publish", path, token, count]:
            _publish(path, token, int(count))
        case [path, token_a, token_b]:
            _say(f"{measure(path, token_a, token_b):.0f} msg/s")
        case _:
            _say(f"{stand_alone():.0f} msg/s")


if __name__ == "__main__":
    main(sys.argv[1:])
