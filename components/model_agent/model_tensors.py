"""Tensors as frames carry them: what a header says of each, and its bytes (standard library and numpy only)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


class RejectedError(ValueError):
    """The agent cannot answer this request, now or later: wrong names, types or shapes, or the model failed on it."""


class Layout:
    """Where the tensors of a header lie: those with `at` in shared memory, the others in the body, one after the other.

    Raises RejectedError for descriptions that are none. `views` are those in shared memory.
    """

    def __init__(self, described: Sequence[Any], memory: Array | None = None) -> None:
        self.names: list[str] = []
        self.views: dict[str, Array] = {}
        self._in_body: list[tuple[str, np.dtype[Any], tuple[int, ...], int, int]] = []
        self._size = 0
        for each in described:
            name, dtype, shape = _described(each)
            self.names.append(name)
            size = math.prod(shape) * dtype.itemsize
            if "at" in each:
                self.views[name] = part(f"tensor {name}", memory, each["at"], size).view(dtype).reshape(shape)
                continue
            self._in_body.append((name, dtype, shape, math.prod(shape), self._size))
            self._size += size

    def arrays(self, body: bytes | bytearray) -> dict[str, Array]:
        """The tensors in the body; raises RejectedError unless it has just their bytes."""
        if len(body) != self._size:
            raise RejectedError(f"cannot read tensors: they take {self._size} bytes, the body has {len(body)}")
        arrays: dict[str, Array] = {}
        for name, dtype, shape, count, start in self._in_body:
            array = np.frombuffer(body, dtype, count, start).reshape(shape)
            if dtype == np.bool_:  # any other byte than 0 is true, and numpy must not see one above 1
                array = np.not_equal(array.view(np.uint8), 0)
            arrays[name] = array if array.flags.aligned else array.copy()
        return arrays


def joined(tensors: Mapping[str, Array]) -> bytes:
    """The arrays' bytes one after the other (C order, little-endian)."""
    parts = [np.ascontiguousarray(each, dtype=each.dtype.newbyteorder("<")).tobytes() for each in tensors.values()]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def part(what: str, memory: Array | None, at: Any, size: Any) -> Array:
    """These bytes of shared memory; raises RejectedError if it has them not."""
    if memory is None:
        raise RejectedError(f"cannot find {what}: this connection shares no memory")
    whole = type(at) is int and type(size) is int and at >= 0 and size >= 0
    if not whole or at + size > memory.nbytes:
        raise RejectedError(f"cannot find {what}: {size!r} bytes at {at!r} are not in {memory.nbytes} of shared memory")
    return memory[at : at + size]


def description(name: str, array: Array) -> dict[str, Any]:
    """How a frame's header describes a tensor; raises RejectedError for a type that cannot be sent."""
    dtype = array.dtype.name
    if dtype not in DTYPES:
        raise RejectedError(f"cannot send tensor {name}: type {dtype} is not one of {', '.join(DTYPES)}")
    return {"name": name, "dtype": dtype, "shape": list(array.shape)}


def _described(each: Mapping[str, Any]) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if not isinstance(each, Mapping):
        raise RejectedError("cannot read tensors: a description is no JSON object")
    name, dtype, shape = each.get("name"), each.get("dtype"), each.get("shape")
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(name, str) or dtype not in DTYPES or not sizes or len(shape or ()) > 32:
        raise RejectedError(f"cannot read tensors: bad description {str(each)[:200]}")
    if math.prod(size or 1 for size in shape or ()) >= 1 << 60:  # numpy has no such array, empty or not
        raise RejectedError(f"cannot read tensors: {name[:100]} is too large")
    return name, _wire_type(dtype), tuple(shape or ())


def _wire_type(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
