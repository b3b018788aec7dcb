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
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

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
        with server(path):
            return measure(path, "token-publisher", "token-subscriber", count)


@contextlib.contextmanager
def server(path: str) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own; the components "publisher" and "subscriber" may do everything."""
    with _process("serve", path) as served:
        _expect(served, "ready")
        try:
            yield served
        finally:
            served.terminate()


def requests_in_turn(count: int = 20_000) -> tuple[float, float]:
    """GetConfiguration requests per second of one blocking client, and the server's CPU for each in microseconds."""
    with tempfile.TemporaryDirectory(prefix="bench-ipc-") as folder:
        path = str(Path(folder) / "ipc.socket")
        with server(path) as served, _client("get", path, "token-publisher", count) as client:
            before = _cpu_s(served.pid)
            seconds = float(_expect(client, "seconds"))
            return count / seconds, (_cpu_s(served.pid) - before) / count * 1e6


def paced(clients: int = 20, per_second: int = 20, seconds: int = 10) -> tuple[float, float, float]:
    """p50 and p99 in milliseconds of GetConfiguration from many client processes, and the server's CPU in us a request."""
    with tempfile.TemporaryDirectory(prefix="bench-ipc-") as folder:
        path = str(Path(folder) / "ipc.socket")
        with server(path) as served, contextlib.ExitStack() as all_of_them:
            known = [
                all_of_them.enter_context(_client("paced", path, "token-publisher", per_second, seconds))
                for _ in range(clients)
            ]
            for one in known:
                _expect(one, "ready")
            before = _cpu_s(served.pid)
            times = sorted(float(text) for one in known for text in _expect(one, "times").split())
            cpu_us = (_cpu_s(served.pid) - before) / len(times) * 1e6
            return times[len(times) // 2], times[len(times) * 99 // 100], cpu_us


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


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


def _get(socket_path: str, token: str, count: int) -> None:
    client = _connect(socket_path, token)
    for _ in range(200):
        client.get_configuration(key_path=["answer"])
    begun = time.perf_counter()
    for _ in range(count):
        client.get_configuration(key_path=["answer"])
    _say(f"seconds {time.perf_counter() - begun}")
    client.close().result(10)


def _paced(socket_path: str, token: str, per_second: int, seconds: int) -> None:
    """Requests at random moments, `per_second` on average; prints how long each took, in milliseconds."""
    client = _connect(socket_path, token)
    for _ in range(50):
        client.get_configuration(key_path=["answer"])
    _say("ready")
    chance = random.Random(token)
    times = []
    for _ in range(per_second * seconds):
        threading.Event().wait(chance.expovariate(per_second))
        begun = time.perf_counter()
        client.get_configuration(key_path=["answer"])
        times.append((time.perf_counter() - begun) * 1000)
    _say("times " + " ".join(f"{one:.3f}" for one in times))
    client.close().result(10)


# ---- the server ------------------------------------------------------------------------------------------------------------


async def _serve(socket_path: str) -> None:
    from nucleus.ipc import connection
    from tests.nucleus import fakes_ipc

    world = fakes_ipc.World(Path(socket_path), connection.Limits())
    for name in ("publisher", "subscriber"):
        world.add(name, access=fakes_ipc.EVERYTHING, answer=42)
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
        case ["get", path, token, count]:
            _get(path, token, int(count))
        case ["paced", path, token, per_second, seconds]:
            _paced(path, token, int(per_second), int(seconds))
        case [path, token_a, token_b]:
            _say(f"{measure(path, token_a, token_b):.0f} msg/s")
        case _:
            _say(f"{stand_alone():.0f} msg/s")


if __name__ == "__main__":
    main(sys.argv[1:])
