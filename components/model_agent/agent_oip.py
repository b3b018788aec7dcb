"""The Open Inference Protocol's words for tensors and requests: data types, raw bytes, JSON, what is refused (pure).

Between the wire of both doors (agent_oip_rest.py, agent_oip_grpc.py) and numpy arrays. JSON of an inference request, with
the binary extension (the bytes of tensors follow the JSON, in the order of the inputs that say `binary_data_size`):

    {"id", "parameters": {"timeout": us, "binary_data_output": bool},
     "inputs": [{"name", "datatype", "shape", "data": values, flat or nested} or {..., "parameters": {"binary_data_size"}}],
     "outputs": [{"name", "parameters": {"binary_data": bool}}]}

A tensor may also lie in shared memory: `parameters` with shared_memory_region, _byte_size and _offset (agent_oip_shared.py).

Arrays are little-endian in C order. BYTES and BF16 are refused: no model of this agent has them. FP16 travels in JSON, too,
as ordinary numbers. Messages and codes are those of Triton where it has one for the case.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DATATYPES = {
    "bool": "BOOL",
    **{f"{kind}int{bits}": f"{kind.upper()}INT{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
_NUMPY = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_BY_TYPE = {
    np.dtype(dtype): datatype for dtype, datatype in DATATYPES.items()
}  # numpy's names of types are slow to ask for
TENSORS_LIMIT = 64  # in one request
TENSOR_LIMIT_BYTES = 16 * 1024 * 1024  # as on the native door (agent_frames.BODY_LIMIT_BYTES)
_DIMENSIONS_LIMIT = 32
_NAME_LIMIT = 256


class OipError(Exception):
    """A request without its answer: `code` has the name of a gRPC status, the message is one readable line."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Place:
    """A part of a shared memory region, in bytes from the region's beginning."""

    region: str
    offset: int
    size: int


Read = Callable[[Place], bytes | memoryview]  # the content of a place; raises OipError


@dataclass(frozen=True)
class Request:
    """One inference request; no `outputs` means all of them, in JSON or binary as `binary` says for the rest.

    Outputs in `places` go into shared memory.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, bool] = field(default_factory=dict)  # name -> wanted as bytes
    binary: bool = False
    identity: str = ""
    timeout_s: float | None = None
    places: Mapping[str, Place] = field(default_factory=dict)


def no_shared_memory(place: Place) -> bytes:
    """The Read of a door without regions."""
    raise OipError("NOT_FOUND", f"Unable to find shared memory region: '{place.region[:256]}'")


def wrong(message: str) -> OipError:
    """The error of a request that cannot be right at any time."""
    return OipError("INVALID_ARGUMENT", message)


def read_json(text: bytes | memoryview) -> dict[str, Any]:
    """The object in a request's JSON; raises OipError if it is none."""
    try:
        given = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise wrong(f"failed to parse the request JSON buffer: {str(error)[:200]}") from error
    if not isinstance(given, dict):
        raise wrong("failed to parse the request JSON buffer: it is no object")
    return given


def read_request(given: Mapping[str, Any], binary: memoryview, shared: Read = no_shared_memory) -> Request:
    """The inference request in `given`, with the bytes that follow it; every byte must belong to an input."""
    parameters = _object(given, "parameters")
    refuse_parameters(parameters)
    inputs: dict[str, Array] = {}
    start = 0
    for each in _objects(given, "inputs"):
        name, datatype, shape = described(each.get("name"), each.get("datatype"), each.get("shape"), inputs)
        found = place(_object(each, "parameters"))
        size = _object(each, "parameters").get("binary_data_size")
        if found is not None:
            inputs[name] = from_bytes(name, datatype, shape, shared(found))
            continue
        if size is None:
            inputs[name] = from_values(name, datatype, shape, each.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - start:
            raise wrong(f"unexpected additional input data for model: binary_data_size {str(size)[:30]} of '{name}'")
        inputs[name] = from_bytes(name, datatype, shape, binary[start : start + size])
        start += size
    if start != len(binary):
        raise wrong(f"unexpected additional input data: {len(binary) - start} bytes belong to no input")
    wants_binary = parameters.get("binary_data_output", False) is True
    wanted = [(_output(each), _object(each, "parameters")) for each in _objects(given, "outputs")]
    outputs = {name: how.get("binary_data", wants_binary) is True for name, how in wanted}
    identity = str(given.get("id", ""))[:_NAME_LIMIT]
    return Request(inputs, outputs, wants_binary, identity, timeout(parameters.get("timeout")), places(wanted))


def write_answer(
    model: str, version: str, request: Request, outputs: Mapping[str, Array]
) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of an answer and the bytes that follow it."""
    described_, parts = [], []
    for name, array in outputs.items():
        each: dict[str, Any] = {"name": name, "datatype": datatype_of(name, array), "shape": list(array.shape)}
        if name in request.places:
            each["parameters"] = placed(request.places[name])
        elif request.outputs.get(name, request.binary):
            parts.append(to_bytes(array))
            each["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            each["data"] = array.reshape(-1).tolist()
        described_.append(each)
    identity = {"id": request.identity} if request.identity else {}
    return {**identity, "model_name": model, "model_version": version, "outputs": described_}, parts


def described(name: Any, datatype: Any, shape: Any, before: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    """A tensor's description, checked; `before` holds the names that came before it."""
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LIMIT:
        raise wrong("an input needs a name, a text of 1 to 256 characters")
    if name in before:
        raise wrong(f"input '{name}' already exists in request")
    if len(before) >= TENSORS_LIMIT:
        raise wrong(f"a request may have {TENSORS_LIMIT} inputs")
    if datatype not in _NUMPY:
        known = ", ".join(sorted(_NUMPY))
        raise wrong(f"unsupported datatype '{str(datatype)[:20]}' for input '{name}': this agent has {known}")
    sizes = isinstance(shape, Sequence) and not isinstance(shape, str | bytes) and len(shape) <= _DIMENSIONS_LIMIT
    if not sizes or not all(type(size) is int and size >= 0 for size in shape):
        raise wrong(f"bad shape {str(shape)[:100]} of input '{name}'")
    # A size of 0 makes an empty tensor, and does not excuse the others.
    expected = math.prod(max(size, 1) for size in shape) * np.dtype(_NUMPY[datatype]).itemsize
    if expected > TENSOR_LIMIT_BYTES:
        raise wrong(f"input '{name}' of {expected} bytes is above the limit of {TENSOR_LIMIT_BYTES}")
    return name, datatype, tuple(shape)


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """The array in `data`, without a copy where its place in memory allows."""
    wire = np.dtype(_NUMPY[datatype]).newbyteorder("<")
    expected = math.prod(shape) * wire.itemsize
    if len(data) != expected:
        raise wrong(f"unexpected total byte size {len(data)} for input '{name}', expecting {expected}")
    if datatype == "BOOL":  # any other byte than 0 is true, and numpy must not see one above 1
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)
    array: Array = np.frombuffer(data, wire).reshape(shape)
    return array if array.flags.aligned else array.copy()


def from_values(name: str, datatype: str, shape: tuple[int, ...], values: Any) -> Array:
    """The array of plain numbers, flat or nested; what the type cannot hold is refused, never rounded to another integer."""
    dtype = np.dtype(_NUMPY[datatype])
    try:
        array = np.array(values if isinstance(values, list | np.ndarray) else list(values)).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        raise wrong(f"unable to parse 'data' of input '{name}': {' '.join(str(error).split())[:100]}") from error
    if array.size != math.prod(shape):
        raise wrong(f"unexpected number of elements {array.size} for input '{name}', expecting {math.prod(shape)}")
    if datatype == "UINT64" and array.dtype.kind in "fO":  # what numpy makes of 0 and 2**63 beside each other
        array = _large(name, values, shape)
    if array.size and array.dtype.kind not in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]:
        raise wrong(f"unable to parse 'data' of input '{name}': its values are not all {datatype}")
    if array.size and dtype.kind in "iu" and not _in_range(array, dtype):
        raise wrong(f"unable to parse 'data' of input '{name}': a value is out of the range of {datatype}")
    with np.errstate(over="ignore"):  # beyond its type's range a float is infinite, as everywhere
        return array.astype(dtype).reshape(shape)


def to_bytes(array: Array) -> bytes:
    """The array as it goes over the wire."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def datatype_of(name: str, array: Array) -> str:
    """The protocol's name for an array's type; raises OipError for a type it has none for here."""
    found = _BY_TYPE.get(array.dtype)
    if found is None:
        raise OipError("UNIMPLEMENTED", f"output '{name}' has the type {array.dtype.name}, which this door cannot send")
    return found


def timeout(microseconds: Any) -> float | None:
    """The `timeout` parameter in seconds; None without one (0 is none, too, as in Triton)."""
    if microseconds is None:
        return None
    if type(microseconds) is not int or microseconds < 0:
        raise wrong("parameter 'timeout' must be a whole number of microseconds")
    return microseconds / 1e6 or None


def refuse_parameters(parameters: Mapping[str, Any]) -> None:
    """Raises OipError for what would change the answer and is not done here; unknown ones are ignored."""
    if parameters.get("sequence_id"):
        raise wrong("parameter 'sequence_id': models of this agent have no sequences")
    if parameters.get("classification"):
        raise OipError("UNIMPLEMENTED", "the classification extension is not supported; read the output itself")


def place(parameters: Mapping[str, Any]) -> Place | None:
    """Where a tensor lies in shared memory, if it does."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    offset, size = parameters.get("shared_memory_offset", 0), parameters.get("shared_memory_byte_size", -1)
    whole = all(type(value) is int and value >= 0 for value in (offset, size))
    if not isinstance(region, str) or not whole or size > TENSOR_LIMIT_BYTES:
        raise wrong("a place in shared memory needs a region and a byte_size of at most 16 MiB")
    return Place(region, offset, size)


def places(wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Place]:
    """The places of the outputs that have one; raises OipError for what is wanted of them and not done here."""
    for _, parameters in wanted:
        refuse_parameters(parameters)
    found = {name: place(parameters) for name, parameters in wanted}
    return {name: each for name, each in found.items() if each is not None}


def placed(place: Place) -> dict[str, Any]:
    """The parameters that name a place."""
    offset = {"shared_memory_offset": place.offset} if place.offset else {}
    return {"shared_memory_region": place.region, "shared_memory_byte_size": place.size, **offset}


def _output(each: Mapping[str, Any]) -> str:
    name = each.get("name")
    if not isinstance(name, str):
        raise wrong("an output needs a name")
    return name


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise wrong(f"'{key}' must be an object")
    return value


def _objects(given: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = given.get(key, [])
    if not isinstance(value, list) or len(value) > TENSORS_LIMIT or not all(isinstance(each, dict) for each in value):
        raise wrong(f"'{key}' must be a list of at most {TENSORS_LIMIT} objects")
    return value


def _in_range(array: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return int(limits.min) <= int(array.min()) <= int(array.max()) <= int(limits.max)


def _large(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    each = np.array(values, dtype=object).reshape(-1).tolist()
    if not all(type(value) is int and 0 <= value < 2**64 for value in each):
        raise wrong(f"unable to parse 'data' of input '{name}': its values are not all UINT64")
    return np.array(each, dtype=np.uint64).reshape(shape)
