"""Asks the model agent for predictions: numpy arrays in, numpy arrays out (standard library and numpy only).

    client = model_client.Client("../marram.ModelAgent/agent.sock")
    answer = client.predict("power-curve", {"conditions": array}, deadline_s=5.0)
    answer.outputs["power_kw"], answer.version

A boot, an agent that restarts, a model that is being exchanged are no errors for an application: `predict` tries again
until the caller's deadline. Copy this file and agent_frames.py beside your program.

Large tensors travel in memory that the client shares with the agent (Linux), small ones over the socket, and all of them
where there is no such memory. Keep a client: its connection and its memory are made once.
"""

from __future__ import annotations

import math
import mmap
import os
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
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
SHARED_FROM_BYTES = 4 * 1024  # of a request or its answer: below, the few microseconds are not worth a mapping
_TRY_AGAIN = frozenset({"NOT_READY", "BUSY", "INTERNAL", "UNANSWERED"})
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_MEMORY_BYTES = 2 * agent_frames.BODY_LIMIT_BYTES  # of a connection; the system gives what is used of it
_ALIGNMENT = 64
_REMEMBERED = 32  # kinds of requests and replies


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


@dataclass(frozen=True)
class _Request:
    """A request up to its body; `places` are those of its inputs in shared memory, in order, none if they are the body."""

    head: bytes
    places: Sequence[Array]


@dataclass(frozen=True)
class _Reply:
    """What a reply's header says; `code` is OK or why not."""

    code: str
    header: Mapping[str, Any]
    layout: Layout


class Client:
    """One connection to the agent, made when needed and made again when it breaks; for one thread.

    Without `shared` all tensors travel over the socket.
    """

    def __init__(self, socket_path: str, *, shared: bool = True) -> None:
        self._path = socket_path
        self._connection: socket.socket | None = None
        self._reader: agent_frames.Reader | None = None
        self._bound_s = -1.0  # of the connection's single calls
        self._memory: Array | None = None
        self._wanted = self._accepted = shared  # whether memory is shared, whether this connection's agent takes it
        self._large: set[str] = set()  # aliases whose answers are
        self._requests: dict[Any, _Request] = {}
        self._replies: dict[bytes, _Reply] = {}

    def predict(self, alias: str, inputs: Mapping[str, Array], *, deadline_s: float) -> Answer:
        """One answer of the model behind `alias`; raises UnansweredError after `deadline_s`, RejectedError for a bad request."""
        end = time.monotonic() + deadline_s
        # The first try says the deadline as it was given: equal requests have equal headers, which both sides remember.
        left_s, pause_s, tries = deadline_s, _FIRST_PAUSE_S, 0
        while True:
            tries += 1
            used = self._connection is not None
            reply, body = self._ask(alias, inputs, max(left_s, 0.0))
            if reply.code == "OK":
                outputs = self._outputs(alias, reply, body)
                return Answer(reply.header["component"], reply.header["version"], outputs, tries)
            reason = f"{reply.code}: {reply.header.get('message')}"
            if reply.code not in _TRY_AGAIN:
                raise RejectedError(f"cannot predict with {alias}: {reason}")
            left_s = end - time.monotonic()
            if used and reply.code == "UNANSWERED" and left_s > 0:
                continue  # the agent of that connection is gone; who listens now may answer at once
            if left_s <= pause_s:
                raise UnansweredError(f"cannot predict with {alias} within {deadline_s:g} s ({tries} tries): {reason}")
            threading.Event().wait(pause_s)
            left_s, pause_s = end - time.monotonic(), min(pause_s * 2, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Closes the connection; the client may be used again."""
        if self._connection is not None:
            self._connection.close()
        # The memory ends with its connection: a late agent may still write an answer into it.
        self._connection = self._reader = self._memory = None
        self._accepted = self._wanted
        self._requests.clear()
        self._replies.clear()

    # ---- one try -----------------------------------------------------------------------------------------------------

    def _ask(self, alias: str, inputs: Mapping[str, Array], left_s: float) -> tuple[_Reply, Any]:
        """The reply and its body; UNANSWERED if there is none."""
        kind = (alias, left_s, *[(name, array.dtype, array.shape) for name, array in inputs.items()])
        try:
            connection, reader = self._connected(left_s)
            request = self._requests.get(kind) or self._new_request(kind, alias, inputs, left_s)
            if request.places:
                for place, array in zip(request.places, inputs.values(), strict=True):
                    np.copyto(place, array)
                agent_frames.write(connection, request.head, b"", left_s)
            else:
                agent_frames.write(connection, request.head, joined(inputs), left_s)
            text, body = reader.frame(left_s)
            return self._replies.get(text) or self._new_reply(text), body
        except (OSError, agent_frames.ClosedError, agent_frames.FrameError) as error:
            self.close()
            why = "no answer in time" if isinstance(error, BlockingIOError) else error or type(error).__name__
            return _Reply(
                "UNANSWERED", {"message": f"the agent at {self._path} does not answer: {why}"}, Layout(())
            ), b""

    def _connected(self, left_s: float) -> tuple[socket.socket, agent_frames.Reader]:
        if self._connection is None or self._reader is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(max(left_s, 0.001))
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                raise
            self._connection, self._reader, self._bound_s = connection, agent_frames.Reader(connection), -1.0
        if self._bound_s != left_s:
            agent_frames.bound(self._connection, left_s, left_s)
            self._bound_s = left_s
        return self._connection, self._reader

    def _new_request(self, kind: Any, alias: str, inputs: Mapping[str, Array], left_s: float) -> _Request:
        described = [description(name, array) for name, array in inputs.items()]
        total = sum(array.nbytes for array in inputs.values())
        if total > agent_frames.BODY_LIMIT_BYTES:
            raise RejectedError(f"cannot predict with {alias}: {total} bytes of tensors are above the agent's limit")
        asked: dict[str, Any] = {"op": "predict", "alias": alias, "tensors": described, "deadline_s": left_s}
        places: list[Array] = []
        memory = self._handed_over() if total >= SHARED_FROM_BYTES or alias in self._large else None
        if memory is not None:
            start = 0
            for each, array in zip(described, inputs.values(), strict=True):
                each["at"] = start
                start += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            asked["room"] = [start, max(memory.nbytes - start, 0)]
            places = list(Layout(described, memory).views.values())
        if len(self._requests) >= _REMEMBERED:
            self._requests.clear()
        self._requests[kind] = _Request(agent_frames.encode(asked, 0 if places else total), places)
        return self._requests[kind]

    def _handed_over(self) -> Array | None:
        """The memory that the agent of this connection has, too; None if there is none or the agent does not take it."""
        if self._memory is None and self._accepted and self._connection is not None and self._reader is not None:
            self._accepted = False
            descriptor = agent_frames.sealed_memory(_MEMORY_BYTES)
            if descriptor is None:
                return None
            try:
                socket.send_fds(self._connection, [agent_frames.encode({"op": "share"})], [descriptor])
                reply = self._new_reply(self._reader.frame(self._bound_s)[0])
                if reply.code == "BUSY":
                    raise agent_frames.ClosedError(f"BUSY: {reply.header.get('message')}")
                if reply.code == "OK":
                    self._memory = np.frombuffer(mmap.mmap(descriptor, _MEMORY_BYTES), np.uint8)
            finally:
                os.close(descriptor)
        return self._memory

    def _new_reply(self, text: bytes) -> _Reply:
        header = agent_frames.decode(text)
        if header.get("ok") is not True:
            return _Reply(str(header.get("code")), header, Layout(()))
        if len(self._replies) >= _REMEMBERED:
            self._replies.clear()
        self._replies[text] = _Reply("OK", header, Layout(header.get("tensors", ()), self._memory))
        return self._replies[text]

    def _outputs(self, alias: str, reply: _Reply, body: bytes | bytearray) -> dict[str, Array]:
        if len(body) >= SHARED_FROM_BYTES and alias not in self._large:
            self._large.add(alias)
            self._requests.clear()
        outputs = reply.layout.arrays(body)
        for name, view in reply.layout.views.items():
            outputs[name] = view.copy()  # it is the agent's again with the next request
        return {name: outputs[name] for name in reply.layout.names} if len(outputs) > 1 else outputs


# ---- tensors and bytes -------------------------------------------------------------------------------------------------


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
