"""Arrays in JSON, packed: how model.json holds golden samples that are too large as lists of numbers.

    {"dtype": "float16", "shape": [1, 300, 300, 3], "zlib": base64 of the zlib-compressed values, little-endian, C order}

`dtype` is how the values are stored, which may be shorter than the tensor's own type. What is unpacked is bounded before
it is allocated, each array and all of a file together (`Limit`), because a model.json is read before anyone has vouched for it.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LIMIT_BYTES = 64 * 1024 * 1024
TOTAL_BYTES = 2 * LIMIT_BYTES
DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)


class Limit:
    """How many bytes the arrays of one file may still take in memory, as what they become."""

    def __init__(self, left_bytes: int = TOTAL_BYTES) -> None:
        self._left = left_bytes

    def take(self, size: int) -> None:
        """Counts an array before it is made; raises ValueError when it is too much."""
        if size > self._left:
            raise ValueError(f"its arrays take more than {TOTAL_BYTES} bytes together")
        self._left -= size


def pack(array: Array, dtype: str = "") -> dict[str, Any]:
    """What `unpack` takes; `dtype` stores the values shorter."""
    stored = np.ascontiguousarray(array, dtype=np.dtype(dtype or array.dtype).newbyteorder("<"))
    data = base64.b64encode(zlib.compress(stored.tobytes(), 9)).decode()
    return {"dtype": stored.dtype.name, "shape": list(stored.shape), "zlib": data}


def unpack(given: Mapping[str, Any], limit: Limit | None = None, item_bytes: int = 0) -> Array:
    """The array; `item_bytes`: of an element of what it becomes, which `limit` counts.

    Raises KeyError for a missing key, ValueError for what is no packed array, or above LIMIT_BYTES or `limit`.
    """
    name, shape = str(given["dtype"]), tuple(int(size) for size in given["shape"])
    if name not in DTYPES or any(size < 0 for size in shape):
        raise ValueError(f"cannot unpack an array of {name[:20]} {list(shape)[:8]}")
    dtype = np.dtype(name).newbyteorder("<")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > LIMIT_BYTES:
        raise ValueError(f"cannot unpack an array of {wanted} bytes: the limit is {LIMIT_BYTES}")
    if limit is not None:
        limit.take(math.prod(shape) * max(item_bytes, dtype.itemsize))
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(given["zlib"], validate=True), wanted + 1)
    except zlib.error as error:
        raise ValueError(f"cannot unpack an array: {error}") from error
    if len(data) != wanted:
        raise ValueError(f"cannot unpack an array: it has {len(data)} bytes or more, its shape needs {wanted}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)
