"""The least that a model in another process costs on this machine: what tools/bench_model.py holds the agent's doors against.

A client copies its input into shared memory and says its size, the other side copies it out, runs the model and says the
answer; no names, no versions, no queue, one client. Once over a Unix socket, once over gRPC on one. The other side:

    python bench_model_floor.py MODEL BYTES_OF_MEMORY ITS_DESCRIPTOR SOCKET_DESCRIPTOR_OR_ADDRESS
"""

from __future__ import annotations

import atexit
import importlib
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent import futures
from typing import Any

SERVICE, METHOD = "bench.Floor", "Predict"
Exchange = Callable[[bytes], bytes]


def frames(_: str, asked: dict[str, Any]) -> tuple[str, Callable[[Any], float]]:
    """A message over a Unix socket."""
    ours, theirs = socket.socketpair()
    memory = _started(asked, str(theirs.fileno()), theirs.fileno())
    theirs.close()

    def exchange(text: bytes) -> bytes:
        ours.send(text)
        return ours.recv(4)

    return "the smallest agent there can be", _call(memory, exchange)


def calls(_: str, asked: dict[str, Any]) -> tuple[str, Callable[[Any], float]]:
    """A call over gRPC; raises ImportError without it."""
    grpc = importlib.import_module("grpc")
    folder = tempfile.mkdtemp(prefix="bf")
    atexit.register(shutil.rmtree, folder)
    address = f"unix:{folder}/grpc.sock"
    memory = _started(asked, address)
    exchange = grpc.insecure_channel(address).unary_unary(f"/{SERVICE}/{METHOD}")
    return "the smallest agent that speaks gRPC", _call(memory, exchange)


def _started(asked: dict[str, Any], where: str, *descriptors: int) -> Any:
    """The memory shared with the other side, which listens."""
    limit = max(asked["sizes"].values())
    memory = os.memfd_create("bench-floor")
    os.ftruncate(memory, limit)
    command = [sys.executable, __file__, asked["model"], str(limit), str(memory), where]
    started = subprocess.Popen(command, pass_fds=(memory, *descriptors), stdout=subprocess.PIPE)
    atexit.register(started.wait)
    atexit.register(started.terminate)
    if started.stdout is None or not started.stdout.readline():
        raise SystemExit(f"cannot start {' '.join(command)}")
    return importlib.import_module("numpy").frombuffer(mmap.mmap(memory, limit), "float32")


def _call(memory: Any, exchange: Exchange) -> Callable[[Any], float]:
    numpy = importlib.import_module("numpy")

    def call(array: Any) -> float:
        numpy.copyto(memory[: array.size], array)
        return float(numpy.frombuffer(exchange(array.size.to_bytes(8, "little")), numpy.float32)[0])

    return call


def _serve(model: str, limit: int, memory: int, where: str) -> None:
    numpy, runtime = importlib.import_module("numpy"), importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    shared = numpy.frombuffer(mmap.mmap(memory, limit), numpy.float32)
    private = numpy.empty_like(shared)

    def answer(text: bytes) -> bytes:
        size = int.from_bytes(text, "little")
        numpy.copyto(private[:size], shared[:size])
        return bytes(session.run(["y"], {"x": private[:size]})[0].tobytes())

    if where.startswith("unix:"):
        grpc = importlib.import_module("grpc")
        server = grpc.server(futures.ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(lambda text, context: answer(text))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        server.add_insecure_port(where)
        server.start()
        print("listening", flush=True)
        server.wait_for_termination()
    print("listening", flush=True)
    with socket.socket(fileno=int(where)) as connection:
        while text := connection.recv(8):
            connection.send(answer(text))


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
