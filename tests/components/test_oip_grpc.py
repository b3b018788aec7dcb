"""The gRPC door in this process, with models that the test holds; and its messages against tritonclient's own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent_check
import agent_engine
import agent_oip
import agent_oip_repository
import agent_oip_service
import agent_oip_shared
import numpy as np
import pytest

from tests.components import models, parts

grpc = pytest.importorskip("grpc", reason="grpcio is not installed (pip install -e '.[all,dev]')")
import agent_oip_grpc  # noqa: E402 - only with grpcio
import agent_oip_pb2  # noqa: E402

messages: Any = agent_oip_pb2
WAIT_S = 20.0


class Model:
    """Answers what it was asked, once it is let go; fails with `error` if there is one."""

    def __init__(self, dtype: str = "float32") -> None:
        inputs, outputs = ((agent_check.Tensor(name, dtype, (-1,)),) for name in ("x", "y"))
        self.manifest = agent_check.Manifest("m", "1", "f", "", "", inputs, outputs, (), 0.0, 0.0)
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def predict(self, inputs: Any) -> dict[str, Any]:
        self.begun.release()
        assert self.go.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return {"y": inputs["x"]}


class World:
    """A door over one core; aliases are what the test says."""

    def __init__(self, waiting_limit: int = 64) -> None:
        self.models: dict[str, Any] = {}
        self.absent: list[str] = []
        engine = agent_engine.Engine(self.serving, 1, waiting_limit)
        aliases: Any = self
        service = agent_oip_service.Service(aliases, engine)
        self.engine = engine
        repository = agent_oip_repository.Repository(aliases, "0" * 64, Path("none"))
        regions = agent_oip_shared.Regions(repository.authorize)
        inside = agent_oip_service.Inside(service, repository, regions)
        self.door = agent_oip_grpc.Door("127.0.0.1:0", inside)
        self.channel = grpc.insecure_channel(self.door.where)

    def serve(self, model: Model, version: str = "1.0.0") -> Model:
        self.models["m"] = SimpleNamespace(model=model, component="c", version=version)
        return model

    def serving(self, alias: str) -> Any:
        return self.models.get(alias)

    def listed(self) -> list[dict[str, Any]]:
        return [{"alias": alias, "component": "c", "version": "", "ready": False} for alias in self.absent]

    def call(self, method: str, **fields: Any) -> Any:
        return self.begin(method, **fields).result(WAIT_S)

    def begin(self, method: str, **fields: Any) -> Any:
        function = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            request_serializer=getattr(messages, f"{method}Request").SerializeToString,
            response_deserializer=getattr(messages, f"{method}Response").FromString,
        )
        return function.future(getattr(messages, f"{method}Request")(**fields))

    def infer(self, **more: Any) -> Any:
        return self.begin(
            "ModelInfer", **({"model_name": "m", "inputs": [ONE], "raw_input_contents": [bytes(4)]} | more)
        )


ONE = {"name": "x", "datatype": "FP32", "shape": [1]}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.channel.close()
    made.door.close(0).wait(WAIT_S)


def status(call: Any) -> str:
    """`CODE: message` of a call that was refused."""
    error = call.exception(WAIT_S)
    assert error is not None, call.result()
    return f"{error.code().name}: {error.details()}"


FIELDS = {"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}
FIELDS |= {"UINT64": "uint64_contents", "INT32": "int_contents", "INT16": "int_contents", "INT8": "int_contents"}
FIELDS |= {"UINT32": "uint_contents", "UINT16": "uint_contents", "UINT8": "uint_contents"}


@pytest.mark.parametrize("dtype", [each for each in models.DTYPES if each != "float16"])
def test_typed_contents_when_of_any_type_then_as_raw_ones(world: World, dtype: str) -> None:
    world.serve(Model(dtype))
    datatype, limits = agent_oip.DATATYPES[dtype], np.iinfo(dtype) if "int" in dtype else None
    values = np.array([limits.min, limits.max] if limits else [0, 1], dtype)
    typed = {"name": "x", "datatype": datatype, "shape": [2], "contents": {FIELDS[datatype]: values.tolist()}}
    raw = {"name": "x", "datatype": datatype, "shape": [2]}

    answers = [
        world.call("ModelInfer", model_name="m", inputs=[typed]),
        world.call("ModelInfer", model_name="m", inputs=[raw], raw_input_contents=[values.tobytes()]),
    ]

    assert [list(answer.raw_output_contents) for answer in answers] == [[values.tobytes()]] * 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"inputs": [ONE | {"contents": {"fp32_contents": [1]}}]}, "contents field must not be specified"),
        ({"raw_input_contents": [b"1234", b"1234"]}, "expected number of raw input contents is 1"),
        ({"raw_input_contents": [b"123"]}, "unexpected total byte size 3 for input 'x', expecting 4"),
        ({"inputs": [ONE], "raw_input_contents": []}, "unexpected number of elements 0"),
        (
            {"inputs": [ONE | {"contents": {"int_contents": [1]}}], "raw_input_contents": []},
            "FP32 goes into fp32_contents",
        ),
        ({"inputs": [ONE | {"datatype": "FP16"}], "raw_input_contents": []}, "FP16 has no typed contents"),
        ({"inputs": [ONE | {"datatype": "BYTES"}]}, "unsupported datatype 'BYTES'"),
        ({"inputs": [ONE | {"shape": [-1]}]}, "bad shape"),
        ({"inputs": [ONE | {"shape": [2**62]}]}, "above the limit"),
        ({"inputs": [ONE, ONE], "raw_input_contents": [bytes(4)] * 2}, "input 'x' already exists"),
        ({"parameters": {"sequence_id": {"int64_param": 3}}}, "no sequences"),
        ({"parameters": {"timeout": {"string_param": "3"}}}, "'timeout' must be"),
    ],
)
def test_request_when_it_is_none_then_invalid_argument(world: World, fields: dict[str, Any], words: str) -> None:
    world.serve(Model())

    refused = status(world.infer(**fields))

    assert refused.startswith("INVALID_ARGUMENT: ")
    assert words in refused


def test_request_when_its_timeout_passes_in_the_queue_then_deadline_exceeded(world: World) -> None:
    model = world.serve(Model())
    model.go.clear()
    first = world.infer()
    assert model.begun.acquire(timeout=WAIT_S)

    late = status(world.infer(parameters={"timeout": {"int64_param": 1000}}))
    model.go.set()

    assert late == "DEADLINE_EXCEEDED: the deadline passed while m was computing for others"
    assert first.result(WAIT_S).model_version == "1.0.0"


def test_request_when_the_queue_is_full_then_unavailable() -> None:
    world = World(waiting_limit=1)
    model = world.serve(Model())
    model.go.clear()
    first = world.infer()
    assert model.begun.acquire(timeout=WAIT_S)
    second = world.infer()
    until_waiting(world, 1)

    refused = status(world.infer())
    model.go.set()

    assert refused == "UNAVAILABLE: 1 requests wait for m already"
    assert [each.result(WAIT_S).model_version for each in (first, second)] == ["1.0.0"] * 2
    world.channel.close()
    world.door.close(0).wait(WAIT_S)


def test_request_for_a_version_when_another_took_over_while_it_waited_then_not_found(world: World) -> None:
    model = world.serve(Model())
    model.go.clear()
    first = world.infer()
    assert model.begun.acquire(timeout=WAIT_S)
    waiting = [world.infer(model_version="1.0.0"), world.infer()]
    until_waiting(world, 2)

    world.serve(Model(), "2.0.0")
    model.go.set()

    assert first.result(WAIT_S).model_version == "1.0.0"
    assert status(waiting[0]).startswith("NOT_FOUND: Request for unknown model: 'm' version 1.0.0 is not found")
    assert waiting[1].result(WAIT_S).model_version == "2.0.0"


def until_waiting(world: World, count: int) -> None:
    end = time.monotonic() + WAIT_S
    while world.engine.figures().get("m", {}).get("waiting") != count:
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def test_model_when_known_but_not_there_then_unavailable_and_the_server_not_ready(world: World) -> None:
    world.absent.append("m")

    assert status(world.infer()) == "UNAVAILABLE: Request for unknown model: 'm' has no available versions"
    assert world.call("ModelReady", name="m").ready is False
    assert world.call("ServerReady").ready is False
    assert world.call("ServerLive").live is True


def test_model_when_it_fails_then_internal_and_the_next_is_answered(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    model = world.serve(Model())
    model.error = ZeroDivisionError("no")

    assert status(world.infer()) == "INTERNAL: ZeroDivisionError: no"
    model.error = None
    assert world.infer().result(WAIT_S).model_version == "1.0.0"
    assert "cannot answer ModelInfer" in capsys.readouterr().err


def test_message_when_too_large_or_none_then_refused_and_the_next_is_answered(world: World) -> None:
    world.serve(Model())
    send = world.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)

    large = world.infer(raw_input_contents=[bytes(agent_oip_grpc.MESSAGE_LIMIT_BYTES)])
    garbage = send.future(b"\xff\xff\xff\xff")

    assert status(large).startswith("RESOURCE_EXHAUSTED: ")
    assert status(garbage).startswith("INTERNAL: ")
    assert world.infer().result(WAIT_S).model_version == "1.0.0"


def test_requests_when_more_than_workers_then_resource_exhausted(world: World) -> None:
    model = world.serve(Model())
    model.go.clear()
    calls = [world.infer() for _ in range(agent_oip_grpc.WORKERS)]
    until_waiting(world, agent_oip_grpc.WORKERS - 1)

    one_more = status(world.infer())
    model.go.set()

    assert one_more.startswith("RESOURCE_EXHAUSTED: ")
    assert {each.result(WAIT_S).model_version for each in calls} == {"1.0.0"}


def test_method_when_not_spoken_then_unimplemented(world: World) -> None:
    call = world.channel.unary_unary("/inference.GRPCInferenceService/CudaSharedMemoryStatus", None, None)

    assert status(call.future(b"")).startswith("UNIMPLEMENTED: ")


def test_messages_when_made_anew_then_the_same_file(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed (pip install -e '.[dev]')")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{parts.AGENT}",
        f"--python_out={tmp_path}",
        "agent_oip.proto",
    ]

    subprocess.run(command, check=True, cwd=parts.AGENT)

    assert (tmp_path / "agent_oip_pb2.py").read_text() == (parts.AGENT / "agent_oip_pb2.py").read_text()


SHAPES = """
import json
import MODULES
found = {}
def add(message):
    found[message.full_name] = {each.name: [each.number, each.type, each.label] for each in message.fields}
    for inner in message.nested_types:
        add(inner)
for module in (MODULES):
    for message in module.DESCRIPTOR.message_types_by_name.values():
        add(message)
    for service in module.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            found[method.full_name] = {"in": [method.input_type.full_name], "out": [method.output_type.full_name]}
print(json.dumps(found))
"""


def test_messages_when_compared_with_tritonclients_then_names_numbers_and_types_are_its() -> None:
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient[grpc] is not installed (pip install -e '.[dev]')")

    ours, theirs = shapes("agent_oip_pb2,"), shapes("tritonclient.grpc.service_pb2, tritonclient.grpc.model_config_pb2")

    for name, fields in ours.items():
        assert fields.items() <= theirs[name].items(), name
    assert len(ours) > 50


def shapes(modules: str) -> dict[str, Any]:
    """Messages and methods of a process that knows only these modules."""
    names = [each.strip() for each in modules.split(",") if each.strip()]
    text = SHAPES.replace("import MODULES", f"import {', '.join(names)}").replace("(MODULES)", f"({', '.join(names)},)")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], cwd=parts.AGENT, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
