"""Looks into the bytes of an ONNX model before any runtime does: what it refers to outside of itself.

A model may name files for its weights (external data), which a runtime would open by a path of the model's choice, and
operators of foreign libraries. Both are refused: what was checked and signed must be all there is. Only the protobuf wire
format and the few fields below are read (onnx.proto of ONNX 1.16); nothing is allocated but slices, and nothing recursive is
deeper than DEPTH_LIMIT.
"""

from __future__ import annotations

from collections.abc import Iterator

DEPTH_LIMIT = 32
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"})

# Message: {field: message in it}; fields that are not named are skipped.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 8: "opset", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},  # 11: what its attributes are where a node says nothing
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_NODE_DOMAIN, _OPSET_DOMAIN = 7, 1
_LARGEST_KEY = 2**32 - 1  # protobuf's own reader drops the bits above: it would see another field than we do


class OutsideError(Exception):
    """`code` is EXTERNAL_DATA, CUSTOM_OPERATORS or NOT_ONNX; the message says which and where."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check(model: bytes) -> None:
    """Raises OutsideError for a model that is not all in itself, or cannot be read."""
    try:
        _walk(memoryview(model), "model", 0)
    except (IndexError, UnicodeDecodeError) as error:
        raise OutsideError("NOT_ONNX", "it is no ONNX model: its bytes end too early") from error


def _walk(data: memoryview, message: str, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise OutsideError("NOT_ONNX", f"its graphs lie in each other more than {DEPTH_LIMIT} deep")
    inner = _FIELDS[message]
    for field, value in _fields(data):
        if message == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            raise OutsideError("EXTERNAL_DATA", "its weights are in another file; save it as one file and sign that")
        domain = (message, field) in (("node", _NODE_DOMAIN), ("opset", _OPSET_DOMAIN))
        if domain and isinstance(value, memoryview) and bytes(value).decode() not in DOMAINS:
            raise OutsideError("CUSTOM_OPERATORS", f"it needs operators of {bytes(value).decode()[:60]!r}")
        if field in inner and isinstance(value, memoryview):
            _walk(value, inner[field], depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field: bytes of a length-delimited one, the number of a varint, 0 for the others."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key > _LARGEST_KEY:
            raise OutsideError("NOT_ONNX", "it is no ONNX model: the number of a field is too large")
        kind = key & 7
        value: memoryview | int = 0
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise OutsideError("NOT_ONNX", "it is no ONNX model: a field is longer than the file")
            value = data[at : at + size]
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise OutsideError("NOT_ONNX", f"it is no ONNX model: wire type {kind}")
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise OutsideError("NOT_ONNX", "it is no ONNX model: a number is too long")
