"""The client of tools/bench_model.py, a process of its own: asks every door in turn and prints medians as JSON.

Flat imports, because it lives among the agent's artifacts as an application does. A door without its library or its
address is left out and told on stderr.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

ROUNDS, CALLS, WARM_UP = 40, 8, 20
Call = Callable[[Any], Any]  # array -> the number that the model answers


def main(asked: dict[str, Any]) -> None:
    sys.path.insert(0, asked["files"])
    numpy = importlib.import_module("numpy")
    doors = {"direct": ("onnxruntime in the client", direct(asked["model"]))}
    floor = importlib.import_module("bench_model_floor")  # beside this file
    others = {
        "floor": floor.frames,
        "native": native,
        "native bytes": native_bytes,
        "REST": rest,
        "floor gRPC": floor.calls,
        "gRPC": grpc,
        "gRPC shared": grpc_shared,
        "edge": edge,
        "edge shared": edge_shared,
    }
    for door, make in others.items():
        try:
            doors[door] = make(asked["addresses"].get(door.partition(" ")[0], ""), asked)
        except ImportError as error:
            print(f"no figures for {door}: {error}", file=sys.stderr)
    found = {}
    for size, size_bytes in asked["sizes"].items():
        array = numpy.random.default_rng(1).random(size_bytes // 4, dtype=numpy.float32)
        found[size] = measured(doors, array)
    print(json.dumps(found))


def measured(doors: dict[str, tuple[str, Call]], array: Any) -> dict[str, dict[str, Any]]:
    """For each door the time of a call, medians over interleaved rounds; every answer must be right."""
    expected = doors["direct"][1](array)
    taken: dict[str, list[float]] = {door: [] for door in doors}
    for door, (_, call) in doors.items():
        for _ in range(WARM_UP):
            if abs(call(array) - expected) > 1e-6:
                raise SystemExit(f"{door} answers {call(array)}, expected {expected}")
    for _ in range(ROUNDS):
        for door, (_, call) in doors.items():
            taken[door].extend(timed(call, array) for _ in range(CALLS))
    return {
        door: {
            "client": doors[door][0],
            "count": len(times),
            "p50_us": statistics.median(times),
            "p99_us": statistics.quantiles(times, n=100)[98],
        }
        for door, times in taken.items()
    }


def timed(call: Call, array: Any) -> float:
    began = time.perf_counter()
    call(array)
    return (time.perf_counter() - began) * 1e6


def direct(model: str) -> Call:
    """The agent's own session options, without the agent."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda array: float(session.run(["y"], {"x": array})[0][0])


def native(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    return "model_client", applied(importlib.import_module("model_client").Client(address), asked["alias"])


def native_bytes(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    client = importlib.import_module("model_client").Client(address, shared=False)
    return "model_client without shared memory", applied(client, asked["alias"])


def applied(client: Any, alias: str) -> Call:
    return lambda array: float(client.predict(alias, {"x": array}, deadline_s=20.0).outputs["y"][0])


def rest(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    module = importlib.import_module("tritonclient.http")
    return "tritonclient.http, binary", triton(module, address, asked["alias"])


def grpc(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    module = importlib.import_module("tritonclient.grpc")
    if not address:
        raise ImportError("the agent has no gRPC door")
    return "tritonclient.grpc, raw", triton(module, address, asked["alias"])


def grpc_shared(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    """The input in one region of the largest size, the answer behind it."""
    module, memory = (importlib.import_module(f"tritonclient.{name}") for name in ("grpc", "utils.shared_memory"))
    numpy = importlib.import_module("numpy")
    if not address:
        raise ImportError("the agent has no gRPC door")
    client, headers = module.InferenceServerClient(address), {"marram-token": asked["token"]}
    size = max(asked["sizes"].values()) + 4
    region = memory.create_shared_memory_region("bench", f"marram-bench-{os.getpid()}", size)
    atexit.register(memory.destroy_shared_memory_region, region)
    client.register_system_shared_memory("bench", f"marram-bench-{os.getpid()}", size, headers=headers)

    def call(array: Any) -> float:
        memory.set_shared_memory_region(region, [array])
        given, wanted = module.InferInput("x", array.shape, "FP32"), module.InferRequestedOutput("y")
        given.set_shared_memory("bench", array.nbytes)
        wanted.set_shared_memory("bench", 4, size - 4)
        client.infer(asked["alias"], [given], outputs=[wanted], headers=headers)
        return float(memory.get_contents_as_numpy(region, numpy.float32, [1], size - 4)[0])

    return "tritonclient.grpc, system shared memory", call


def edge(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    predict, messages = edge_stub(address)
    described = messages.TensorMetadata(name=b"x", data_type=messages.FLOAT32)

    def call(array: Any) -> float:
        del described.shape[:]
        described.shape.append(array.size)
        given = messages.Tensor(tensor_metadata=described, byte_data=array.tobytes())
        return edge_number(predict(messages.PredictRequest(name=asked["alias"], tensors=[given])))

    return "grpcio, Edge Manager's messages", call


def edge_shared(address: str, asked: dict[str, Any]) -> tuple[str, Call]:
    """The input in a segment of System V, closed for writing before each call and opened after it, as the protocol wants."""
    predict, messages = edge_stub(address)
    libc = ctypes.CDLL(None)
    libc.shmat.restype, libc.shmat.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    identity = libc.shmget(0, max(asked["sizes"].values()), 0o1600)  # IPC_PRIVATE, IPC_CREAT
    memory, status = libc.shmat(identity, None, 0), ctypes.create_string_buffer(512)
    atexit.register(libc.shmctl, identity, 0, None)  # IPC_RMID
    libc.shmctl(identity, 2, status)  # IPC_STAT
    described = messages.TensorMetadata(name=b"x", data_type=messages.FLOAT32)

    def allow(mode: int) -> None:
        struct.pack_into("=H", status, 20, mode)
        libc.shmctl(identity, 1, status)  # IPC_SET

    def call(array: Any) -> float:
        ctypes.memmove(memory, array.ctypes.data, array.nbytes)
        allow(0o400)
        del described.shape[:]
        described.shape.append(array.size)
        handle = messages.SharedMemoryHandle(size=array.nbytes, offset=0, segment_id=identity)
        given = messages.Tensor(tensor_metadata=described, shared_memory_handle=handle)
        answer = predict(messages.PredictRequest(name=asked["alias"], tensors=[given]))
        allow(0o600)
        return edge_number(answer)

    return "grpcio, Edge Manager's messages, System V shared memory", call


def edge_stub(address: str) -> tuple[Call, Any]:
    if not address:
        raise ImportError("the agent has no door of Edge Manager")
    rpc, messages = importlib.import_module("grpc"), importlib.import_module("agent_edge_pb2")
    predict = rpc.insecure_channel(address, options=(("grpc.max_send_message_length", -1),)).unary_unary(
        "/AWS.SageMaker.Edge.Agent/Predict",
        request_serializer=messages.PredictRequest.SerializeToString,
        response_deserializer=messages.PredictResponse.FromString,
    )
    return predict, messages


def edge_number(answer: Any) -> float:
    return float(struct.unpack("<f", answer.tensors[0].byte_data)[0])


def triton(module: Any, address: str, alias: str) -> Call:
    client = module.InferenceServerClient(address)

    def call(array: Any) -> float:
        given = module.InferInput("x", array.shape, "FP32")
        given.set_data_from_numpy(array)
        return float(client.infer(alias, [given]).as_numpy("y")[0])

    return call


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
