"""Edge Manager's messages to and from arrays and captures: shapes, bytes, shared memory, what is refused.

Tensors are little-endian in C order. In a Predict a tensor without metadata, or without a name, is the model's input at its
place; a size that only the data knows is worked out where one is missing. Names are bytes on the wire (text in older clients).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import agent_capture_files
import agent_check
import agent_edge_pb2
import agent_sysv
import numpy as np

Array = np.ndarray[Any, Any]
DTYPES = ("uint8", "int16", "int32", "int64", "float16", "float32", "float64")  # by the number of DataType
ENCODINGS = ("CSV", "JSON", "NONE", "BASE64")
CONTENT_TYPES = {"CSV": "text/csv", "JSON": "application/json"}
TENSORS_LIMIT = 64
_NAME_LIMIT = 256
_DIMENSIONS_LIMIT = 32
_messages: Any = agent_edge_pb2  # its classes are made at import and known to no checker


class EdgeError(Exception):
    """A request without its answer: `code` has the name of a gRPC status, the message is one readable line."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def wrong(message: str) -> EdgeError:
    """The error of a request that cannot be right at any time."""
    return EdgeError("INVALID_ARGUMENT", message)


def arrays(tensors: Sequence[Any], manifest: agent_check.Manifest, limit: int) -> dict[str, Array]:
    """The inputs of a Predict, by name; `limit` bytes for each tensor."""
    if len(tensors) != len(manifest.inputs):
        raise wrong(f"{len(tensors)} tensors came; {manifest.name} takes {len(manifest.inputs)}")
    declared = {tensor.name: tensor for tensor in manifest.inputs}
    found: dict[str, Array] = {}
    for place, tensor in enumerate(tensors):
        name = _name(tensor.tensor_metadata.name) or manifest.inputs[place].name
        if name not in declared or name in found:
            raise wrong(f"input {name!r} came twice or is none of this model's: {', '.join(declared)}")
        found[name] = _array(name, tensor, declared[name], limit)
    return found


def tensors(outputs: dict[str, Array]) -> list[Any]:
    """A model's answer, always as bytes."""
    return [
        _messages.Tensor(
            tensor_metadata=_metadata(name, array.dtype.name, array.shape),
            byte_data=np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes(),
        )
        for name, array in outputs.items()
    ]


def model(alias: str, url: str, manifest: agent_check.Manifest | None) -> Any:
    """What is said about an alias; no metadata for a model with types this protocol has no name for."""
    described = _messages.Model(url=url, name=alias)
    if manifest is None or any(each.dtype not in DTYPES for each in (*manifest.inputs, *manifest.outputs)):
        return described
    described.input_tensor_metadatas.extend(_metadata(one.name, one.dtype, one.shape) for one in manifest.inputs)
    described.output_tensor_metadatas.extend(_metadata(one.name, one.dtype, one.shape) for one in manifest.outputs)
    return described


def captured(tensors: Sequence[Any], auxiliaries: Sequence[Any], limit: int) -> tuple[agent_capture_files.Item, ...]:
    """What one side of a capture holds; `limit` bytes for each."""
    if len(tensors) + len(auxiliaries) > TENSORS_LIMIT:
        raise wrong(f"a capture may have {TENSORS_LIMIT} inputs and as many outputs")
    items = []
    for place, tensor in enumerate(tensors):
        if not tensor.HasField("tensor_metadata"):
            raise wrong(f"tensor {place} of the capture has no metadata: what its bytes are would be lost")
        name = _name(tensor.tensor_metadata.name)
        dtype, shape = _described(name, tensor.tensor_metadata)
        data = bytes(_data(f"tensor {name!r}", tensor, _size(dtype, shape), limit))
        _check_size(name, data, dtype, shape)
        content = f"Tensor[{dtype}; {', '.join(map(str, shape))}]"
        items.append(agent_capture_files.Item(name, content, data))
    for each in auxiliaries:
        if not 0 <= each.encoding < len(ENCODINGS):
            raise wrong(f"auxiliary {each.name[:50]!r} has the unknown encoding {each.encoding}")
        encoding = ENCODINGS[each.encoding]
        content = CONTENT_TYPES.get(encoding, "application/octet-stream")
        data = bytes(_data(f"auxiliary {each.name[:50]!r}", each, 0, limit))
        items.append(agent_capture_files.Item(each.name[:_NAME_LIMIT], content, data, encoding))
    return tuple(items)


def _array(name: str, tensor: Any, declared: agent_check.Tensor, limit: int) -> Array:
    dtype, shape = declared.dtype, declared.shape
    if tensor.HasField("tensor_metadata"):
        dtype, shape = _described(name, tensor.tensor_metadata)
        if dtype != declared.dtype:
            raise wrong(f"type mismatch: input {name!r} is {dtype}; this model takes {declared.dtype}")
        if not declared.fits(dtype, shape):
            raise wrong(f"shape mismatch: input {name!r} is {list(shape)}; this model takes {list(declared.shape)}")
    known = -1 not in shape
    data = _data(f"input {name!r}", tensor, _size(dtype, shape) if known else 0, limit)
    if not known:
        shape = _completed(name, data, dtype, shape)
    _check_size(name, data, dtype, shape)
    if dtype == "bool":
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)
    array: Array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _completed(name: str, data: bytes | Array, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if shape.count(-1) > 1:
        raise wrong(f"input {name!r} needs metadata with its shape: this model takes {list(shape)}")
    row = _size(dtype, tuple(size for size in shape if size != -1))
    return tuple(len(data) // max(row, 1) if size == -1 else size for size in shape)


def _check_size(name: str, data: bytes | Array, dtype: str, shape: tuple[int, ...]) -> None:
    if len(data) != _size(dtype, shape):
        raise wrong(f"tensor {name!r} has {len(data)} bytes; {dtype} {list(shape)} takes {_size(dtype, shape)}")


def _described(name: str, metadata: Any) -> tuple[str, tuple[int, ...]]:
    if not 0 <= metadata.data_type < len(DTYPES):
        raise wrong(f"tensor {name!r} has the unknown data type {metadata.data_type}")
    shape = tuple(metadata.shape)
    if len(shape) > _DIMENSIONS_LIMIT or any(size < 0 for size in shape):
        raise wrong(f"tensor {name!r} has the shape {str(list(shape))[:100]}")
    return DTYPES[metadata.data_type], shape


def _data(what: str, given: Any, expected: int, limit: int) -> bytes | Array:
    """The bytes of a tensor or an auxiliary; of a segment without a size `expected` ones, or the rest for 0."""
    if expected > limit:
        raise wrong(f"{what} of {expected} bytes is above the limit of {limit}")
    kind = given.WhichOneof("data")
    if kind is None:
        raise wrong(f"{what} has no data")
    if kind == "byte_data":
        return bytes(given.byte_data)
    handle = given.shared_memory_handle
    try:
        return agent_sysv.SEGMENTS.read(handle.segment_id, handle.offset, handle.size or expected, limit)
    except agent_sysv.SegmentError as error:
        raise wrong(f"{what}: {error}") from error


def _metadata(name: str, dtype: str, shape: Sequence[int]) -> Any:
    if dtype not in DTYPES:
        raise EdgeError("INTERNAL", f"output {name!r} is {dtype}, which Edge Manager's messages have no name for")
    return _messages.TensorMetadata(name=name.encode(), data_type=DTYPES.index(dtype), shape=shape)


def _name(given: bytes) -> str:
    try:
        name = given.decode()
    except UnicodeDecodeError as error:
        raise wrong(f"the name of a tensor is no UTF-8: {given[:50]!r}") from error
    if len(name) > _NAME_LIMIT:
        raise wrong(f"the name of a tensor is longer than {_NAME_LIMIT} characters")
    return name


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
