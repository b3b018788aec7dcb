"""`make ipc-soak`: what many calls, connections and broken frames leave behind in the running daemon.

    .venv/bin/python -m tools.ipc_soak [--frames N] [--seed S]

Each phase is warmed up first, because memory that is reached once is not a leak; growth is that of the daemon's resident
memory over the phase. Prints a line per phase, ends 1 when a bound is broken (issue 4: 2 MiB; 1 MiB for broken frames).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from nucleus.wire import eventstream, rpc
from tests.conformance import daemon
from tests.nucleus import fakes_ipc
from tests.nucleus.ipc.raw import Raw, body, request

CALLS = 100_000
CYCLES = 10_000
CONNECTS = 1_000
FRAMES = 1_000_000
MESSAGES = 100_000
MESSAGE_BYTES = 10 * 1024
GROWTH_KIB = 2048
FRAME_GROWTH_KIB = 1024
BLOCK = 64  # requests in a write
QUEUE_KIB = 4 * 1024  # connection.Limits.queued_bytes
BLOCKED_KIB = 4 * QUEUE_KIB  # the queue of the blocked one, the sockets' buffers and one message being copied


class Soak:
    """The daemon with two components whose tokens are known, a good one and a bad one."""

    def __init__(self, one: daemon.Daemon) -> None:
        self.daemon = one
        self.pid = one.pid
        self.failed = False
        access = {"accessControl": fakes_ipc.EVERYTHING, "answer": 42}
        run = {"Run": "echo $SVCUID > token; exec sleep 1000000"}
        config = {"ComponentConfiguration": {"DefaultConfiguration": access}}
        self.good, self.bad = (one.component(run, **config) for _ in range(2))
        one.deploy_local({self.good: "1.0.0", self.bad: "1.0.0"})
        one.until(lambda: self.token(self.good) != "" and self.token(self.bad) != "", "the components")

    def token(self, name: str) -> str:
        path = self.daemon.root / "work" / name / "token"
        return path.read_text().strip() if path.exists() else ""

    def connect(self, name: str) -> Raw:
        return Raw(self.daemon.socket, self.token(name))

    def rss_kib(self) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def phase(self, name: str, work: Callable[[int], str], count: int, bound_kib: int) -> None:
        """Runs a tenth as a warm-up, then all of it, and compares."""
        work(count // 10)
        before = self.rss_kib()
        said = work(count)
        growth = self.rss_kib() - before
        self.say(name, f"{count:,} done, memory {growth:+,} KiB (bound {bound_kib:,}) {said}", growth <= bound_kib)

    def say(self, name: str, text: str, well: bool) -> None:
        self.failed = self.failed or not well
        print(f"{'ok    ' if well else 'BROKEN'} {name:<24} {text}", flush=True)

    # ---- phases ------------------------------------------------------------------------------------------------------

    def calls(self, count: int) -> str:
        """Three operations in turn, a block of requests at a time; every answer is read."""
        bodies = [
            ("GetConfiguration", b'{"keyPath":["answer"]}'),
            ("PublishToTopic", b'{"topic":"soak","publishMessage":{"jsonMessage":{"message":{"a":1}}}}'),
            ("UpdateState", b'{"state":"RUNNING"}'),
        ]
        with self.connect(self.good) as one:
            for first in range(1, count, BLOCK):
                numbers = range(first, min(first + BLOCK, count + 1))
                one.send(b"".join(request(number, *bodies[number % 3]) for number in numbers))
                for _ in numbers:
                    answer = one.read()
                    assert answer is not None, "the daemon closed the connection"
                    assert answer.head.kind == rpc.Kind.MESSAGE, answer
        return ""

    def cycles(self, count: int) -> str:
        with self.connect(self.good) as one:
            for number in range(1, count + 1):
                topic = rpc.dump({"topic": f"soak/{number}/#"})
                one.send(request(number, "SubscribeToTopic", topic))
                assert body(one.read()) == {}
                one.send(request(number, "", b"", rpc.TERMINATE))
        return ""

    def connects(self, count: int) -> str:
        for _ in range(count):
            with self.connect(self.good) as one:
                assert body(one.call(1, "GetConfiguration", {"keyPath": ["answer"]}))["value"] == {"answer": 42}
        return ""

    def frames(self, count: int, dice: random.Random) -> str:
        """Broken frames of one client; its neighbour is asked every few thousand of them."""
        seeds = _seeds(self.token(self.bad))
        closed = 0
        with self.connect(self.good) as neighbour:
            bad = self.connect(self.bad)
            for number in range(count):
                try:
                    bad.send(mutated(dice, dice.choice(seeds)))
                    _discard(bad)
                except OSError:
                    closed += 1
                    bad.close()
                    bad = self.connect(self.bad)
                if number % 5_000 == 0:
                    found = body(neighbour.call(number + 1, "GetConfiguration", {"keyPath": ["answer"]}))
                    assert found["value"] == {"answer": 42}, found
            bad.close()
        crashes = self.daemon.log().count("ipc.handler_failed")
        if crashes:
            self.say("handlers", f"{crashes} failed in a way they should not, see the log", well=False)
        return f"connections closed by the server: {closed:,}"

    def blocked(self, count: int) -> None:
        """One subscriber never reads; another reads everything; the publisher waits for neither."""
        topic = rpc.dump({"topic": "soak/large"})
        before = peak = self.rss_kib()
        arrived: list[int] = []
        with self.connect(self.bad) as blocked, self.connect(self.bad) as reader, self.connect(self.good) as publisher:
            for one in (blocked, reader):
                one.send(request(1, "SubscribeToTopic", topic))
                assert body(one.read()) == {}
            thread = threading.Thread(target=_read, args=(reader, count, arrived))
            thread.start()
            for number in range(1, count + 1):
                message = {"number": number, "filling": "x" * MESSAGE_BYTES}
                wanted = {"topic": "soak/large", "publishMessage": {"jsonMessage": {"message": message}}}
                publisher.send(request(number, "PublishToTopic", rpc.dump(wanted)))
                assert body(publisher.read()) == {}
                peak = max(peak, self.rss_kib()) if number % 200 == 0 else peak
            thread.join(60)
        grown = peak - before
        right = arrived == list(range(1, count + 1))
        text = (
            f"{count:,} x {MESSAGE_BYTES:,} B; the other one got {len(arrived):,}{'' if right else ', NOT IN ORDER'};"
        )
        self.say(
            "blocked subscriber",
            f"{text} memory at most {grown:+,} KiB (bound {BLOCKED_KIB:,})",
            right and grown <= BLOCKED_KIB,
        )


def _read(reader: Raw, count: int, arrived: list[int]) -> None:
    while len(arrived) < count:
        message = reader.read()
        if message is None:
            return
        arrived.append(int(body(message)["jsonMessage"]["message"]["number"]))


def _discard(one: Raw) -> None:
    """Takes what has come, without waiting, so that the server never waits for us; raises OSError at the end of it."""
    one.socket.setblocking(False)
    try:
        while True:
            if not one.socket.recv(65536):
                raise ConnectionResetError
    except BlockingIOError:
        return
    finally:
        one.socket.setblocking(True)
        one.socket.settimeout(10)


def _seeds(token: str) -> list[bytes]:
    numbers = rpc.encode(rpc.Kind.PING, 0, 0)[12:-4]
    publish = b'{"topic":"a","publishMessage":{"jsonMessage":{"message":{"a":[1]}}}}'
    binary = b'{"topic":"a","publishMessage":{"binaryMessage":{"message":"AAECAw=="}}}'
    update = b'{"keyPath":["soak"],"timestamp":1.5,"valueToMerge":{"a":1}}'
    return [
        rpc.connect(token),
        request(1, "ListComponents"),
        request(2, "PublishToTopic", publish),
        request(2, "PublishToTopic", binary),
        request(3, "SubscribeToTopic", b'{"topic":"a/#"}'),
        request(3, "", b"", rpc.TERMINATE),
        request(4, "UpdateConfiguration", update),
        request(5, "GetConfiguration", b'{"componentName":"x","keyPath":["a","b"]}'),
        request(6, "GetThingShadow", b'{"thingName":"t","shadowName":"s"}'),
        eventstream.encode(numbers, b"ping"),
    ]


def mutated(dice: random.Random, frame: bytes) -> bytes:
    """A few bytes changed; mostly with the checksums made right again, so that it goes deeper."""
    data = bytearray(frame)
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if dice.random() < 0.8:
        data[0:12] = frame[0:12]
        data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    return bytes(data)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Looks for what the IPC server leaves behind.")
    parser.add_argument("--frames", type=int, default=FRAMES, help="broken frames to send")
    parser.add_argument("--scale", type=float, default=1.0, help="of the other phases")
    parser.add_argument("--seed", type=int, default=20240229)
    asked = parser.parse_args(arguments)

    def scaled(count: int) -> int:
        return max(int(count * asked.scale), 100)

    dice = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, daemon.running(Path(folder) / "r", services={}) as one:
        soak = Soak(one)
        soak.phase("unary calls", soak.calls, scaled(CALLS), GROWTH_KIB)
        soak.phase("subscribe, unsubscribe", soak.cycles, scaled(CYCLES), GROWTH_KIB)
        soak.phase("connects", soak.connects, scaled(CONNECTS), GROWTH_KIB)
        soak.blocked(scaled(MESSAGES))
        soak.phase("broken frames", lambda count: soak.frames(count, dice), asked.frames, FRAME_GROWTH_KIB)
        return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
