"""Measures what the IPC server itself can do, with a generator that sends frames made in advance and only counts bytes.

    .venv/bin/python -m tools.bench_ipc_raw

Method: the server with the real broker, configuration store and authorization in a process of its own; the generator beside
it on the same machine; server CPU from the process's times, the mean over the whole run. The official clients cost ten
times as much as the server (spec/ipc.md 4.2), so their rates say nothing about it.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from msgspec import Struct

from nucleus.wire import eventstream, rpc
from tools import bench_ipc

WINDOW = 64  # requests in a block; two blocks are under way
TOPIC = "bench/raw"
_TIMEOUT_S = 60.0


class Row(Struct, frozen=True):
    """`cpu_us` is the server's CPU for each message, user and system; `p50_us` only where one request waits for another."""

    name: str
    rate: float
    cpu_us: float
    p50_us: float = 0.0


def request(operation: str, body: dict[str, object], stream_id: int) -> bytes:
    """A client's first frame of a stream, as the official Python client writes it."""
    headers = (
        eventstream.string("operation", rpc.NAMESPACE + operation)
        + eventstream.string("service-model-type", f"{rpc.NAMESPACE}{operation}Request")
        + eventstream.string(":content-type", "application/json")
        + eventstream.int32(":message-type", rpc.Kind.MESSAGE)
        + eventstream.int32(":message-flags", 0)
        + eventstream.int32(":stream-id", stream_id)
    )
    return eventstream.encode(headers, rpc.dump(body))


def publication(size: int) -> dict[str, object]:
    text = "A" * (size * 4 // 3)
    return {"topic": TOPIC, "publishMessage": {"binaryMessage": {"message": text[: len(text) // 4 * 4]}}}


def connect(path: str, token: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(_TIMEOUT_S)
    one.connect(path)
    one.sendall(rpc.connect(token))
    exactly(one, 71)
    return one


def exactly(one: socket.socket, count: int) -> None:
    """Reads and forgets `count` bytes."""
    while count:
        got = len(one.recv(min(count, 1 << 18)))
        if not got:
            raise RuntimeError("cannot measure: the server closed the connection")
        count -= got


def answer_bytes(path: str, operation: str, body: dict[str, object]) -> int:
    """How long one answer is; answers to equal requests are equally long."""
    with connect(path, "token-publisher") as one:
        one.sendall(request(operation, body, 1))
        return len(one.recv(1 << 20, socket.MSG_PEEK))


# ---- what is measured ----------------------------------------------------------------------------------------------------


def pipelined(path: str, operation: str, body: dict[str, object], blocks: int) -> int:
    """Two blocks of WINDOW requests under way on one connection; returns the number of requests."""
    answer = answer_bytes(path, operation, body)
    block = b"".join(request(operation, body, number) for number in range(1, WINDOW + 1))
    with connect(path, "token-publisher") as one:
        one.sendall(block)
        for _ in range(blocks - 1):
            one.sendall(block)
            exactly(one, answer * WINDOW)
        exactly(one, answer * WINDOW)
    return blocks * WINDOW


def fan_out(path: str, size: int, subscribers: int, blocks: int) -> int:
    """Pipelined publications, each delivered to every subscriber; returns the number of publications."""
    body = publication(size)
    listening = [connect(path, "token-subscriber") for _ in range(subscribers)]
    for one in listening:
        one.sendall(request("SubscribeToTopic", {"topic": TOPIC}, 1))
        one.recv(1 << 16)
    with connect(path, "token-publisher") as first:
        first.sendall(request("PublishToTopic", body, 1))
        event = len(listening[0].recv(1 << 20))
        for one in listening[1:]:
            exactly(one, event)
    answer = answer_bytes(path, "PublishToTopic", body)
    for one in listening:
        exactly(one, event)
    block = b"".join(request("PublishToTopic", body, number) for number in range(1, WINDOW + 1))
    with connect(path, "token-publisher") as publisher:
        for _ in range(blocks):
            publisher.sendall(block)
            exactly(publisher, answer * WINDOW)
            for one in listening:
                exactly(one, event * WINDOW)
    for one in listening:
        one.close()
    return blocks * WINDOW


def in_turn(path: str, connections: int, count: int) -> tuple[int, float]:
    """One request outstanding on each connection; the number of requests and the median time of one, in microseconds."""
    body: dict[str, object] = {"keyPath": ["answer"]}
    answer = answer_bytes(path, "GetConfiguration", body)
    frame = request("GetConfiguration", body, 1)
    ready = selectors.DefaultSelector()
    since: dict[socket.socket, float] = {}
    opened = [connect(path, "token-publisher") for _ in range(connections)]
    for one in opened:
        ready.register(one, selectors.EVENT_READ, one)
        since[one] = time.perf_counter()
        one.sendall(frame)
    times: list[float] = []
    while len(times) < count:
        for key, _ in ready.select(_TIMEOUT_S):
            one = key.data
            exactly(one, answer)
            times.append(time.perf_counter() - since[one])
            since[one] = time.perf_counter()
            one.sendall(frame)
    for one in opened:
        one.close()
    return count, statistics.median(times) * 1e6


def rows() -> list[Row]:
    """Every figure, in one run."""
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-raw-") as folder:
        path = str(Path(folder) / "ipc.socket")
        with bench_ipc.server(path) as process:
            server = psutil.Process(process.pid)

            def measure(name: str, work: Callable[[], int | tuple[int, float]]) -> None:
                work_cpu, begun = _cpu(server), time.perf_counter()
                done = work()
                count, p50 = done if isinstance(done, tuple) else (done, 0.0)
                seconds = time.perf_counter() - begun
                found.append(Row(name, count / seconds, (_cpu(server) - work_cpu) / count * 1e6, p50))

            pipelined(path, "GetConfiguration", {"keyPath": ["answer"]}, 50)  # warm
            measure(
                "GetConfiguration, pipelined", lambda: pipelined(path, "GetConfiguration", {"keyPath": ["answer"]}, 800)
            )
            measure("publish, no subscriber, 100 B", lambda: pipelined(path, "PublishToTopic", publication(100), 800))
            measure("publish -> 1 subscriber, 100 B", lambda: fan_out(path, 100, 1, 500))
            measure("publish -> 1 subscriber, 10 KiB", lambda: fan_out(path, 10240, 1, 100))
            measure("publish -> 10 subscribers, 100 B", lambda: fan_out(path, 100, 10, 100))
            measure("GetConfiguration, 1 connection in turn", lambda: in_turn(path, 1, 10_000))
            measure("GetConfiguration, 20 connections in turn", lambda: in_turn(path, 20, 20_000))
    return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    for row in rows():
        median = f"   p50 {row.p50_us:5.0f} us" if row.p50_us else ""
        print(f"{row.name:<44} {row.rate:>9.0f}/s   server {row.cpu_us:5.1f} us a message{median}", flush=True)


if __name__ == "__main__":
    main()
