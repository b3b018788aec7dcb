"""Asks the model agent for predictions: numpy arrays in, numpy arrays out (standard library and numpy only).

    client = model_client.Client("../marram.ModelAgent/agent.sock")
    answer = client.predict("power-curve", {"conditions": array}, deadline_s=5.0)
    answer.outputs["power_kw"], answer.version

A boot, an agent that restarts, a model that is being exchanged are no errors for an application: `predict` tries again
until the caller's deadline. Copy this file, model_tensors.py and agent_frames.py beside your program.

Large tensors travel in memory that the client shares with the agent (Linux), small ones over the socket, and all of them
where there is no such memory. Keep a client: its connections and their memory are made once.
"""

from __future__ import annotations

import math
import mmap
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import agent_frames
import model_tensors
import numpy as np

Array = model_tensors.Array
RejectedError = model_tensors.RejectedError
SHARED_FROM_BYTES = 4 * 1024  # of a request or its answer: below, the few microseconds are not worth a mapping
AT_A_TIME = 8  # requests of one client; more threads take turns
_TRY_AGAIN = frozenset({"NOT_READY", "BUSY", "INTERNAL", "UNANSWERED"})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.04, 0.5
_LONGEST_S = 1e6
_MEMORY_BYTES = 2 * agent_frames.BODY_LIMIT_BYTES  # of a connection; the system gives what is used of it
_ALIGNMENT, _REMEMBERED = 64, 32  # bytes; kinds of requests and replies


class UnansweredError(TimeoutError):
    """The deadline passed without an answer; the message tells the last reason."""


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
    layout: model_tensors.Layout


class Client:
    """Asks the agent whose socket is at `socket_path`; for any number of threads.

    Each request that is under way has a connection of its own, at most AT_A_TIME. Connections are made when needed, kept,
    and made again when they break; a forked process makes its own. Without `shared` all tensors travel over the socket.
    """

    def __init__(self, socket_path: str | os.PathLike[str], *, shared: bool = True) -> None:
        self._path = os.fspath(socket_path)
        self._shared = shared
        self._begin()
        _CLIENTS.add(self)

    def _begin(self) -> None:
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []  # of all open ones; what was used last is used next
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(AT_A_TIME):
            self._turns.put(None)

    def predict(self, alias: str, inputs: Mapping[str, Array], *, deadline_s: float) -> Answer:
        """One answer of the model behind `alias`, its arrays the caller's to write to.

        Raises UnansweredError after `deadline_s`, RejectedError for a bad request.
        """
        if math.isnan(deadline_s):
            raise RejectedError(f"cannot predict with {alias}: deadline_s must be a number of seconds, not nan")
        end = (begun := time.monotonic()) + deadline_s
        # The first try says the deadline as it was given: equal requests have equal headers, which both sides remember.
        left_s, tries = deadline_s, 0
        while True:
            tries += 1
            reply, outputs, used = self._ask(alias, inputs, max(left_s, 0.0))
            if reply.code == "OK":
                return Answer(reply.header["component"], reply.header["version"], outputs, tries)
            reason = f"{reply.code}: {reply.header.get('message')}"
            if reply.code not in _TRY_AGAIN:
                raise RejectedError(f"cannot predict with {alias}: {reason}")
            left_s = end - (now := time.monotonic())
            if used and reply.code == "UNANSWERED" and left_s > 0:
                continue  # the agent of that connection is gone, or ended it; who listens now may answer at once
            # A tenth of the time without an answer: who waited long asks seldom, and nobody waits much longer than it took.
            pause_s = min(max(_FIRST_PAUSE_S, (now - begun) / 10), _LONGEST_PAUSE_S)
            if left_s <= pause_s:
                raise UnansweredError(f"cannot predict with {alias} within {deadline_s:g} s ({tries} tries): {reason}")
            threading.Event().wait(pause_s)
            left_s = end - time.monotonic()

    def close(self) -> None:
        """Closes the connections (those of requests under way when these are answered); the client may be used again."""
        idle, self._idle = self._idle, []
        for one in idle:
            self._end(one)

    def forked(self) -> None:
        """This process is a copy of the one that made the connections: they are that one's. Python calls this itself."""
        inherited = list(self._open)
        self._begin()
        for one in inherited:
            one.close()  # here only: the other process has it open

    def _ask(self, alias: str, inputs: Mapping[str, Array], left_s: float) -> tuple[_Reply, dict[str, Array], bool]:
        """One try: the reply, UNANSWERED if there is none, its outputs, and whether the connection was used before."""
        turns, idle, end = self._turns, self._idle, 0.0
        try:
            turns.get_nowait()
        except queue.Empty:
            end = time.monotonic() + left_s
            try:
                turns.get(timeout=min(left_s, _LONGEST_S))
            except queue.Empty:
                return _unanswered(f"{AT_A_TIME} other threads ask with this client"), {}, False
        connection, used = None, False
        try:
            if end:
                left_s = max(end - time.monotonic(), 0.0)
            try:
                connection, used = idle.pop(), True
            except IndexError:
                connection = self._connected(left_s)
            return *connection.ask(alias, inputs, left_s), used
        except (OSError, agent_frames.ClosedError, agent_frames.FrameError) as error:
            self.close()  # the others are of the same agent
            why = "no answer in time" if isinstance(error, BlockingIOError) else error or type(error).__name__
            return _unanswered(f"the agent at {self._path} does not answer: {why}"), {}, used
        finally:
            if connection is not None:
                self._take_back(connection, idle)
            turns.put(None)

    def _connected(self, left_s: float) -> _Connection:
        made = _Connection(self._path, self._shared, left_s)
        self._open.add(made)
        return made

    def _take_back(self, connection: _Connection, idle: list[_Connection]) -> None:
        # In the middle of an exchange (also when the caller was interrupted) the next reply would be of the last request.
        if connection.between and idle is self._idle:
            idle.append(connection)
        else:
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.close()


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _forked() -> None:
    for each in list(_CLIENTS):
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Connection:
    """A connection and what was asked over it; for one thread at a time. Raises OSError, RejectedError for a bad path."""

    def __init__(self, path: str, shared: bool, left_s: float) -> None:
        self.between = True  # two exchanges: false from the first byte sent to the last one received
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(max(min(left_s, _LONGEST_S), 0.001))
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            if error.errno is None and not isinstance(error, TimeoutError):  # not the system's: no path of a socket
                raise RejectedError(f"cannot reach the agent at {path}: {error}; use a relative path") from error
            raise
        self._reader = agent_frames.Reader(self._socket)
        self._bound_s = -1.0  # of single calls
        self._memory: Array | None = None
        self._accepted = shared  # whether this agent takes memory
        self._large: set[str] = set()  # aliases whose answers are
        self._requests: dict[Any, _Request] = {}
        self._replies: dict[bytes, _Reply] = {}

    def close(self) -> None:
        self._socket.close()  # and its memory is used no more: a late agent may still write an answer into it

    def ask(self, alias: str, inputs: Mapping[str, Array], left_s: float) -> tuple[_Reply, dict[str, Array]]:
        """The reply and its outputs; raises OSError, agent_frames.ClosedError or FrameError when there is none."""
        kind = (alias, left_s, *[(name, array.dtype, array.shape) for name, array in inputs.items()])
        if self._bound_s != left_s:
            agent_frames.bound(self._socket, left_s, left_s)
            self._bound_s = left_s
        request = self._requests.get(kind) or self._new_request(kind, alias, inputs)
        for place, array in zip(request.places, inputs.values(), strict=False):  # all or none
            np.copyto(place, array)
        body = b"" if request.places else model_tensors.joined(inputs)
        self.between = False
        agent_frames.write(self._socket, request.head, body, left_s)
        text, answered = self._reader.frame(left_s)
        self.between = True
        reply = self._replies.get(text) or self._new_reply(text)
        return reply, self._outputs(alias, reply, answered) if reply.code == "OK" else {}

    def _new_request(self, kind: Any, alias: str, inputs: Mapping[str, Array]) -> _Request:
        described = [model_tensors.description(name, array) for name, array in inputs.items()]
        total = sum(array.nbytes for array in inputs.values())
        if total > agent_frames.BODY_LIMIT_BYTES:
            raise RejectedError(f"cannot predict with {alias}: {total} bytes of tensors are above the agent's limit")
        asked: dict[str, Any] = {"op": "predict", "alias": alias, "tensors": described, "deadline_s": self._bound_s}
        places: list[Array] = []
        memory = self._handed_over() if total >= SHARED_FROM_BYTES or alias in self._large else None
        if memory is not None:
            start = 0
            for each, array in zip(described, inputs.values(), strict=True):
                each["at"] = start
                start += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            asked["room"] = [start, max(memory.nbytes - start, 0)]
            places = list(model_tensors.Layout(described, memory).views.values())
        if len(self._requests) >= _REMEMBERED:
            self._requests.clear()
        try:
            self._requests[kind] = _Request(agent_frames.encode(asked, 0 if places else total), places)
        except agent_frames.FrameError as error:
            raise RejectedError(f"cannot predict with {alias}: {error}") from error
        return self._requests[kind]

    def _handed_over(self) -> Array | None:
        """The memory that the agent of this connection has, too; None if there is none or the agent does not take it."""
        if self._memory is not None or not self._accepted:
            return self._memory
        self._accepted = False
        descriptor = agent_frames.sealed_memory(_MEMORY_BYTES)
        if descriptor is None:
            return None
        try:
            self.between = False
            socket.send_fds(self._socket, [agent_frames.encode({"op": "share"})], [descriptor])
            reply = self._new_reply(self._reader.frame(self._bound_s)[0])
            if reply.code == "BUSY":
                raise agent_frames.ClosedError(f"BUSY: {reply.header.get('message')}")
            if reply.code == "OK":
                self._memory = np.frombuffer(mmap.mmap(descriptor, _MEMORY_BYTES), np.uint8)
            self.between = True
        finally:
            os.close(descriptor)
        return self._memory

    def _new_reply(self, text: bytes) -> _Reply:
        header = agent_frames.decode(text)
        if header.get("ok") is not True:
            return _Reply(str(header.get("code")), header, model_tensors.Layout(()))
        if len(self._replies) >= _REMEMBERED:
            self._replies.clear()
        self._replies[text] = _Reply("OK", header, model_tensors.Layout(header.get("tensors", ()), self._memory))
        return self._replies[text]

    def _outputs(self, alias: str, reply: _Reply, body: bytes | bytearray) -> dict[str, Array]:
        if len(body) >= SHARED_FROM_BYTES and alias not in self._large:
            self._large.add(alias)
            self._requests.clear()
        # An array of bytes that never change could not be written to.
        outputs = reply.layout.arrays(bytearray(body) if isinstance(body, bytes) else body)
        for name, view in reply.layout.views.items():
            outputs[name] = view.copy()  # it is the agent's again with the next request
        return {name: outputs[name] for name in reply.layout.names} if len(outputs) > 1 else outputs


def _unanswered(why: str) -> _Reply:
    return _Reply("UNANSWERED", {"message": why}, model_tensors.Layout(()))
