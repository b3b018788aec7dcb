"""What clients of Edge Manager's agent do, in a process of its own, with the stubs in a folder: prints one JSON object.

python edge_client.py STUBS SOCKET PACKAGES (open|closed) [TOKEN]   where NAME_IS_TEXT in the environment says which proto it was
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import struct
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STUBS, SOCKET, PACKAGES, MODE = sys.argv[1:5]
TOKEN = (*sys.argv, "")[5]
sys.path.insert(0, STUBS)
import grpc  # noqa: E402

pb2: Any = importlib.import_module("agent_edge_pb2")
stubs: Any = importlib.import_module("agent_edge_pb2_grpc")
options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0))
agent = stubs.AgentStub(grpc.insecure_channel(f"unix://{SOCKET}", options=options))
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
libc.shmdt.argtypes = (ctypes.c_void_p,)
CONDITIONS = struct.pack("<4f", 8.0, 10.0, 11.0, 0.0)
FLOAT32 = 5
said: dict[str, Any] = {}


def name(text: str) -> Any:
    return text if os.environ["NAME_IS_TEXT"] == "1" else text.encode()


def text(given: Any) -> str:
    return given if isinstance(given, str) else given.decode()


def code(function: Callable[[], Any]) -> str:
    """The status of a call."""
    try:
        function()
    except grpc.RpcError as error:
        return str(error.code().name) if error.details() else "a status without words"
    return "OK"


@contextmanager
def segment(data: bytes, mode: int, room: int = 0) -> Iterator[int]:
    """A System V segment with `data`, flipped to `mode` once it is written; its id."""
    made = libc.shmget(0, max(len(data), room, 1), 0o1600)
    assert made >= 0
    try:
        address = libc.shmat(made, None, 0)
        ctypes.memmove(address, data, len(data))
        libc.shmdt(address)
        status = ctypes.create_string_buffer(512)
        libc.shmctl(made, 2, status)
        struct.pack_into("=H", status, 20, mode)
        assert libc.shmctl(made, 1, status) == 0
        yield made
    finally:
        libc.shmctl(made, 0, None)


def tensor(called: str, dtype: int, shape: list[int], data: bytes | None = None, **handle: int) -> Any:
    described = pb2.TensorMetadata(name=name(called), data_type=dtype, shape=shape)
    if data is not None:
        return pb2.Tensor(tensor_metadata=described, byte_data=data)
    return pb2.Tensor(tensor_metadata=described, shared_memory_handle=pb2.SharedMemoryHandle(**handle))


def conditions(**handle: int) -> Any:
    return tensor("conditions", FLOAT32, [2, 2], None if handle else CONDITIONS, **handle)


def predict(alias: str, *tensors: Any) -> Any:
    return agent.Predict(pb2.PredictRequest(name=alias, tensors=tensors))


def power(answer: Any) -> list[Any]:
    (one,) = answer.tensors
    described = one.tensor_metadata
    values = struct.unpack("<2f", one.byte_data)
    return [text(described.name), described.data_type, list(described.shape), [round(each, 3) for each in values]]


def load(alias: str, package: str, **how: Any) -> Any:
    return agent.LoadModel(pb2.LoadModelRequest(url=f"{PACKAGES}/{package}", name=alias), **how).model


def unload(alias: str, **how: Any) -> Any:
    return agent.UnLoadModel(pb2.UnLoadModelRequest(name=alias), **how)


def names() -> list[str]:
    return [model.name for model in agent.ListModels(pb2.ListModelsRequest()).models]


def model(given: Any) -> dict[str, Any]:
    sides = (given.input_tensor_metadatas, given.output_tensor_metadatas)
    return {
        "url": given.url.removeprefix(PACKAGES),
        "name": given.name,
        "tensors": [[[text(one.name), one.data_type, list(one.shape)] for one in side] for side in sides],
    }


def capture(identity: str, alias: str = "power-curve", ahead: float = -1, **fields: Any) -> str:
    moment = time.time() + ahead
    sent = {"input_tensors": [conditions()], **fields}
    stamp = pb2.Timestamp(seconds=int(moment), nanos=5)
    asked = pb2.CaptureDataRequest(model_name=alias, capture_id=identity, inference_timestamp=stamp, **sent)
    return code(lambda: agent.CaptureData(asked))


def status(identity: str) -> Any:
    return agent.GetCaptureDataStatus(pb2.GetCaptureDataStatusRequest(capture_id=identity)).status


def loading() -> None:
    said["loaded"] = model(load("one", "1.1.0"))
    said["load: alias in use"] = code(lambda: load("one", "1.0.0"))
    said["load: alias of a component"] = code(lambda: load("power-curve", "1.0.0"))
    said["load: bad alias"] = [
        code(lambda alias=alias: load(alias, "1.1.0")) for alias in ("", "-a", "a_b", "a-", "a b")
    ]
    said["load: no package"] = [code(lambda at=at: load("none", at)) for at in ("absent", "empty", "1.1.0/model.json")]
    said["load: bad package"] = [code(lambda at=at: load("bad", at)) for at in ("1.2.0", "damaged")]
    said["load: memory"] = code(lambda: load("large", "large"))
    load("wide", "wide")
    said["load: models"] = code(lambda: load("three", "1.0.0"))
    said["listed"] = names()
    said["described"] = model(agent.DescribeModel(pb2.DescribeModelRequest(name="power-curve")).model)
    said["described dynamic"] = model(agent.DescribeModel(pb2.DescribeModelRequest(name="bytes")).model)
    describe = [lambda a=a: agent.DescribeModel(pb2.DescribeModelRequest(name=a)) for a in ("absent", "no alias")]
    said["describe: refused"] = [code(each) for each in describe]


def predicting() -> None:
    said["predict"] = power(predict("power-curve", conditions()))
    said["predict: the other alias"] = power(predict("one", conditions()))
    said["predict: no metadata"] = power(predict("one", pb2.Tensor(byte_data=CONDITIONS)))
    said["predict: absent"] = code(lambda: predict("absent", conditions()))
    wrong = {
        "type": tensor("conditions", 6, [1, 2], CONDITIONS),
        "unknown type": tensor("conditions", 0, [2, 2], CONDITIONS),
        "shape": tensor("conditions", FLOAT32, [4, 1], CONDITIONS),
        "negative": tensor("conditions", FLOAT32, [-1, 2], CONDITIONS),
        "size": tensor("conditions", FLOAT32, [2, 2], CONDITIONS[:-1]),
        "name": tensor("other", FLOAT32, [2, 2], CONDITIONS),
        "no data": pb2.Tensor(tensor_metadata=conditions().tensor_metadata),
    }
    said["predict: wrong"] = {what: code(lambda one=one: predict("one", one)) for what, one in wrong.items()}
    said["predict: no tensor"] = code(lambda: predict("one"))
    said["predict: twice"] = code(lambda: predict("one", conditions(), conditions()))
    said["predict: type without a name"] = code(lambda: predict("bytes", pb2.Tensor(byte_data=b"abc")))
    large = os.urandom(4 * 1024 * 1024) * 2
    answer = predict("wide", tensor("x", 0, [len(large)], large))
    said["predict: 8 MB"] = answer.tensors[0].byte_data == large
    said["predict: above the limit"] = code(lambda: predict("wide", tensor("x", 0, [1], bytes(17 * 1024 * 1024))))


def sharing() -> None:
    with segment(b"....." + CONDITIONS + b"rest", 0o400) as made:
        handle = {"segment_id": made, "offset": 5, "size": 16}
        said["shared"] = power(predict("one", conditions(**handle)))
        said["shared: no size"] = power(predict("one", conditions(segment_id=made, offset=5)))
        wrong = (
            {"offset": 10, "size": 16, "segment_id": made},
            {"offset": 30, "segment_id": made},
            {"offset": 2**64 - 16, "size": 16, "segment_id": made},
            {"size": 2**63, "segment_id": made},
            {"segment_id": 2**40},
            {"segment_id": 2**31 - 7},
            {"size": 12, "segment_id": made},
        )
        said["shared: wrong"] = [code(lambda h=h: predict("one", conditions(**h))) for h in wrong]
    said["shared: removed"] = code(lambda: predict("one", conditions(**handle)))
    said["shared: modes"] = {}
    for mode in (0o600, 0o420, 0o402, 0o500, 0o410, 0o401, 0o444):
        with segment(CONDITIONS, mode) as made:
            said["shared: modes"][f"{mode:o}"] = code(lambda made=made: predict("one", conditions(segment_id=made)))
    large = os.urandom(1024 * 1024)
    with segment(large, 0o400) as made:
        answer = predict("wide", pb2.Tensor(shared_memory_handle=pb2.SharedMemoryHandle(segment_id=made)))
        said["shared: 1 MB"] = answer.tensors[0].byte_data == large


def capturing() -> None:
    first, large = str(uuid.uuid4()), str(uuid.uuid4())
    with segment(CONDITIONS, 0o400) as made:
        shared = [conditions(segment_id=made)]
        aux = [pb2.AuxilaryData(name="note", encoding=1, byte_data=b'{"a": 1}')]
        out = [tensor("power_kw", FLOAT32, [2, 1], bytes(8))]
        said["capture"] = capture(first, input_tensors=shared, output_tensors=out, outputs=aux)
    said["captured"] = [first, large]
    said["capture: large"] = capture(large, input_tensors=[tensor("x", 0, [5000], bytes(5000))])
    said["capture: status"] = [status(first), status(large)]
    said["capture: twice"] = capture(first.upper())
    said["capture: future"] = capture(str(uuid.uuid4()), ahead=3600)
    said["capture: absent"] = capture(str(uuid.uuid4()), "absent")
    said["capture: more than the disk may hold"] = capture(
        str(uuid.uuid4()), input_tensors=[tensor("x", 0, [300_000], bytes(300_000))]
    )
    said["capture: wrong"] = [
        capture("no uuid"),
        capture(str(uuid.uuid4()), input_tensors=[]),
        capture(str(uuid.uuid4()), input_tensors=[pb2.Tensor(byte_data=b"abc")]),
        capture(str(uuid.uuid4()), input_tensors=[tensor("x", 0, [3], b"abcd")]),
        capture(str(uuid.uuid4()), ahead=-1e11),
        capture(str(uuid.uuid4()), "no alias"),
    ]
    said["capture: status unknown"] = [code(lambda i=i: status(i)) for i in (str(uuid.uuid4()), "no uuid", "")]


def unloading() -> None:
    said["unload"] = code(lambda: unload("one"))
    said["unload: refused"] = [code(lambda a=a: unload(a)) for a in ("one", "absent", "power-curve")]
    said["predict: unloaded"] = code(lambda: predict("one", conditions()))
    unload("wide")
    said["listed at the end"] = names()


def closed() -> None:
    """A door that wants a token, and captures for the Cloud."""
    right, wrong = (("marram-token", TOKEN),), (("marram-token", "x" + TOKEN),)
    said["no token"] = [code(lambda: load("one", "1.1.0")), code(lambda: load("one", "1.1.0", metadata=wrong))]
    said["token"] = code(lambda: load("one", "1.1.0", metadata=right))
    said["unload without"] = code(lambda: unload("one"))
    said["predict"] = power(predict("one", conditions()))
    said["capture"] = capture(str(uuid.uuid4()), "one")
    said["unload with"] = code(lambda: unload("one", metadata=right))


if MODE == "closed":
    closed()
else:
    loading()
    predicting()
    sharing()
    capturing()
    unloading()
print(json.dumps(said))
