"""Asks the model agent for predictions: numpy arrays in, numpy arrays out (standard library and numpy only).

    client = model_client.Client("../marram.ModelAgent/agent.sock")
    answer = client.predict("power-curve", {"conditions": array}, deadline_s=5.0)
    answer.outputs["power_kw"], answer.version

A boot, an agent that restarts, a model that is being exchanged are no errors for an application: `predict` tries again
until the caller's deadline. Copy this file and agent_frames.py beside your program.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import agent_frames
import numpy as np

Array = np.ndarray[Any, Any]
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
_TRY_AGAIN = frozenset({"NOT_READY", "BUSY", "INTERNAL"})
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class UnansweredError(TimeoutError):
    """The deadline passed without an answer; the message tells the last reason."""


class RejectedError(ValueError):
    """The agent cannot answer this request, now or later: wrong names, types or shapes, or the model failed on it."""


@dataclass(frozen=True)
class Answer:
    """One prediction: which component version gave it, its outputs by name, and how many tries it took."""

    component: str
    version: str
    outputs: dict[str, Array]
    tries: int


class Client:
    """One connection to the agent, made when needed and made again when it breaks; for one thread."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._connection: socket.socket | None = None

    def predict(self, alias: str, inputs: Mapping[str, Array], *, deadline_s: float) -> Answer:
        """One answer of the model behind `alias`; raises UnansweredError after `deadline_s`, RejectedError for a bad request."""
        described, body = pack(inputs)
        if len(body) > agent_frames.BODY_LIMIT_BYTES:
            raise RejectedError(
                f"cannot predict with {alias}: {len(body)} bytes of tensors are above the agent's limit"
            )
        end = time.monotonic() + deadline_s
        pause_s, tries = _FIRST_PAUSE_S, 0
        while True:
            tries += 1
            asked = {
                "op": "predict",
                "alias": alias,
                "tensors": described,
                "deadline_s": max(end - time.monotonic(), 0.0),
            }
            header, answered, reason = self._ask(asked, body, end)
            if header.get("ok") is True:
                outputs = unpack(header["tensors"], answered)
                return Answer(header["component"], header["version"], outputs, tries)
            if header and header.get("code") not in _TRY_AGAIN:
                raise RejectedError(f"cannot predict with {alias}: {reason}")
            left = end - time.monotonic()
            if left <= pause_s:
                raise UnansweredError(f"cannot predict with {alias} within {deadline_s:g} s ({tries} tries): {reason}")
            threading.Event().wait(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Closes the connection; the client may be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, header: dict[str, Any], body: bytes, end: float) -> tuple[dict[str, Any], bytes, str]:
        """One try: the reply's header and body, and in words why there is none or a bad one."""
        try:
            if self._connection is None:
                self._connection = self._connect(end)
            self._connection.settimeout(max(end - time.monotonic(), 0.001))
            agent_frames.send(self._connection, header, body)
            reply, answered = agent_frames.receive(self._connection)
        except (OSError, agent_frames.ClosedError) as error:
            self.close()
            return {}, b"", f"the agent at {self._path} does not answer: {error or type(error).__name__}"
        except agent_frames.FrameError as error:
            self.close()
            return {}, b"", str(error)
        return reply, answered, f"{reply.get('code')}: {reply.get('message')}"

    def _connect(self, end: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(max(end - time.monotonic(), 0.001))
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection


def pack(tensors: Mapping[str, Array]) -> tuple[list[dict[str, Any]], bytes]:
    """Descriptions `{name, dtype, shape}` and the arrays' bytes one after the other (C order, little-endian)."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, array in tensors.items():
        dtype = array.dtype.name
        if dtype not in DTYPES:
            raise RejectedError(f"cannot send tensor {name}: type {dtype} is not one of {', '.join(DTYPES)}")
        described.append({"name": name, "dtype": dtype, "shape": list(array.shape)})
        parts.append(np.ascontiguousarray(array, dtype=_wire_type(dtype)).tobytes())
    return described, b"".join(parts)


def unpack(described: Sequence[Mapping[str, Any]], body: bytes) -> dict[str, Array]:
    """The arrays of a frame's body; raises RejectedError unless descriptions and bytes fit exactly."""
    arrays: dict[str, Array] = {}
    start = 0
    for each in described:
        name, dtype, shape = _described(each)
        size = math.prod(shape) * _wire_type(dtype).itemsize
        if start + size > len(body):
            raise RejectedError(f"cannot read tensor {name}: the body ends before it does")
        array = np.frombuffer(body, _wire_type(dtype), math.prod(shape), start).reshape(shape)
        arrays[name] = array if array.flags.aligned else array.copy()
        start += size
    if start != len(body):
        raise RejectedError(f"cannot read tensors: {len(body) - start} bytes of the body belong to none")
    return arrays


def _described(each: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    if not isinstance(each, Mapping):
        raise RejectedError("cannot read tensors: a description is no JSON object")
    name, dtype, shape = each.get("name"), each.get("dtype"), each.get("shape")
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(name, str) or dtype not in DTYPES or not sizes or len(shape or ()) > 32:
        raise RejectedError(f"cannot read tensors: bad description {str(each)[:200]}")
    return name, str(dtype), tuple(shape or ())


def _wire_type(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
