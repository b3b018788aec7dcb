"""The predictions of one connection of the native door: headers to inputs, outputs to replies, both remembered.

    {"op": "predict", "alias", "tensors": [{name, dtype, shape, at}], "deadline_s", "room": [at, bytes]} + bytes
                                                            -> component, version, tensors + bytes
    {"op": "share"} + a descriptor (SCM_RIGHTS)             -> bytes

A tensor with `at` lies there in the memory that the client shared (agent_shared.py), one without in the body. Outputs go into
`room`, one after the other, as long as they fit. A client asks the same thing again and again with other numbers, so the
header of a request is read once and recognised by its bytes afterwards, and so is what was told last. JSON is the slow part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import agent_engine
import agent_frames
import agent_shared
import model_tensors
import numpy as np

LONGEST_S = 60.0  # a request waits in the queue
_LONGEST_NUMBER_S = 1e9  # JSON has integers that no float holds
_REMEMBERED = 16  # kinds of requests
_REMEMBERED_HEADER_BYTES = 4096
_ALIGNMENT = 64
Array = np.ndarray[Any, Any]


class RequestError(Exception):
    """A request that gets no answer: the code and message of its reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Request:
    """A request that was read: everything but the numbers."""

    def __init__(self, header: Mapping[str, Any], memory: Array | None, copies: agent_shared.Copies) -> None:
        tensors = header.get("tensors")
        if not isinstance(tensors, list) or not all(isinstance(each, dict) for each in tensors):
            raise RequestError("INVALID_ARGUMENT", "predict needs a list of tensors")
        self.header = header
        self.alias = text(header, "alias")
        self.wait_s = min(seconds(header, "deadline_s", LONGEST_S), LONGEST_S)
        self._layout = model_tensors.Layout(tensors, memory)
        self._room_at, self._room = _room(header.get("room"), memory)
        views = self._layout.views
        size = sum(view.nbytes for view in views.values())
        if size > agent_frames.BODY_LIMIT_BYTES:
            raise RequestError("INVALID_ARGUMENT", f"{size} bytes of tensors are above the limit; send smaller batches")
        self._shared = [agent_shared.Input(name, view, copies) for name, view in views.items()]
        self._told: tuple[Any, bytes, list[Array]] = (None, b"", [])

    def inputs(self, body: bytes | bytearray) -> dict[str, Array]:
        """The arrays of a request with this header."""
        inputs = self._layout.arrays(body)
        for each in self._shared:
            inputs[each.name] = each.copied()
        return inputs

    def reply(self, answer: agent_engine.Answer) -> tuple[bytes, bytes]:
        """The frame of the reply up to its body, and the body; outputs that have room are written there."""
        kind = (answer.component, answer.version, [(name, a.dtype, a.shape) for name, a in answer.outputs.items()])
        if self._told[0] == kind:
            _, head, places = self._told
            for place, array in zip(places, answer.outputs.values(), strict=False):
                np.copyto(place, array)
            return head, b"" if places else model_tensors.joined(answer.outputs)
        described, places, rest = self._laid_out(answer.outputs)
        body = model_tensors.joined(rest)
        if len(body) > agent_frames.BODY_LIMIT_BYTES:
            raise RequestError(
                "INVALID_ARGUMENT", f"the answer of {len(body)} bytes is above the limit; send smaller batches"
            )
        reply = {"ok": True, "component": answer.component, "version": answer.version, "tensors": described}
        head = agent_frames.encode(reply, len(body))
        if not places or not rest:
            self._told = (kind, head, places)
        return head, body

    def forget(self) -> None:
        """A request with this header will not come again."""
        for each in self._shared:
            each.forget()

    def _laid_out(self, outputs: Mapping[str, Array]) -> tuple[list[dict[str, Any]], list[Array], dict[str, Array]]:
        """Descriptions of all outputs, the places of those that are in the room now, and those that have none."""
        described, places, rest, start = [], [], {}, 0
        for name, array in outputs.items():
            described.append(model_tensors.description(name, array))
            end = start + array.nbytes
            if self._room is None or end > self._room.nbytes:
                rest[name] = array
                continue
            described[-1]["at"] = self._room_at + start
            places.append(self._room[start:end].view(array.dtype).reshape(array.shape))
            np.copyto(places[-1], array)
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
        return described, places, rest


class Predictions:
    """What one connection asked before, and the memory it shares; for one thread."""

    def __init__(self, engine: agent_engine.Engine, copies: agent_shared.Copies) -> None:
        self._engine = engine
        self._copies = copies
        self._memory: Array | None = None
        self._known: dict[bytes, Request] = {}

    def header(self, text: bytes) -> Mapping[str, Any]:
        """The header in `text`; raises agent_frames.FrameError."""
        known = self._known.get(text)
        return known.header if known is not None else agent_frames.decode(text)

    def share(self, descriptor: int) -> dict[str, Any]:
        """Takes the memory of the client in place of what it shared before, and closes the descriptor."""
        if descriptor < 0:
            raise RequestError("INVALID_ARGUMENT", "share needs a descriptor beside its frame (SCM_RIGHTS)")
        self.close()
        try:
            self._memory = agent_shared.opened(descriptor)
        except agent_shared.SharedError as error:
            raise RequestError("REFUSED", str(error)) from None
        finally:
            os.close(descriptor)
        return {"ok": True, "bytes": self._memory.nbytes}

    def answer(self, text: bytes, header: Mapping[str, Any], body: bytes | bytearray) -> tuple[bytes, bytes]:
        """The frame of the reply up to its body, and the body. Raises RequestError, model_tensors.RejectedError, InputError."""
        request = self._known.get(text) or self._read(text, header)
        deadline = time.monotonic() + request.wait_s
        try:
            answer = self._engine.predict(request.alias, request.inputs(body), deadline)
        except agent_engine.NotReadyError as error:
            raise RequestError("NOT_READY", str(error)) from None
        except agent_engine.BusyError as error:
            raise RequestError("BUSY", str(error)) from None
        return request.reply(answer)

    def close(self) -> None:
        """Forgets everything; the memory is unmapped when nothing refers to it any more."""
        for request in self._known.values():
            request.forget()
        self._known.clear()
        self._memory = None

    def _read(self, text: bytes, header: Mapping[str, Any]) -> Request:
        request = Request(header, self._memory, self._copies)
        if len(text) > _REMEMBERED_HEADER_BYTES:
            request.forget()
            return request
        if len(self._known) >= _REMEMBERED:
            for each in self._known.values():
                each.forget()
            self._known.clear()
        self._known[text] = request
        return request


def text(header: Mapping[str, Any], key: str) -> str:
    """A text of a request's header; raises RequestError."""
    value = header.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise RequestError("INVALID_ARGUMENT", f"{header.get('op')} needs {key}, a text")
    return value


def seconds(header: Mapping[str, Any], key: str, default: float) -> float:
    """A number of seconds of a request's header; raises RequestError."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise RequestError("INVALID_ARGUMENT", f"{key} must be a number of seconds")
    return float(min(value, _LONGEST_NUMBER_S))


def _room(given: Any, memory: Array | None) -> tuple[int, Array | None]:
    if given is None:
        return 0, None
    if not isinstance(given, list) or len(given) != 2:
        raise RequestError("INVALID_ARGUMENT", "room must be a place in shared memory and its bytes")
    room = model_tensors.part("room for the answer", memory, given[0], given[1])
    return given[0], room
