"""One operation call: what a handler gets, and the rules of its stream (spec/ipc.md 2.3).

Rules: the answer is on the wire before the first event (earlier events wait, a few); a unary answer and an error end the
stream; when the stream ends, whatever the handler registered is cancelled once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from nucleus.core import handover
from nucleus.ipc import ports as ports_
from nucleus.wire import extensions, rpc

EARLY_EVENTS = 100  # events kept until the answer is sent, e.g. retained messages right behind a SUBACK


class Wire(Protocol):
    """The connection as a call sees it."""

    def send(self, frame: bytes, /) -> None: ...
    def send_event(self, frame: bytes, /) -> None: ...
    def forget(self, stream_id: int, /) -> None: ...


class Call:
    """A stream from its first frame to its end. `caller` is the component bound to the connection."""

    def __init__(
        self, caller: str, ports: ports_.Ports, wire: Wire, stream_id: int, operation: str, request: bytes = b""
    ) -> None:
        self.caller = caller
        self.ports = ports
        self.operation = operation
        self.ended = False
        self.resumed = False  # the client has had the answer from the process image before this one
        self._request = request
        self._wire = wire
        self._stream_id = stream_id
        self._answered = False
        self._early: list[bytes] = []
        self._cancels: list[Callable[[], None]] = []

    def emit(self, event: dict[str, Any]) -> None:
        """Sends an event of the operation's event shape, or drops it when the client does not read."""
        self.emit_encoded(rpc.dump(event))

    def emit_encoded(self, event: bytes) -> None:
        """Like emit, for an event whose JSON text is shared by several subscribers."""
        if self.ended:
            return
        if not self._answered:
            if len(self._early) < EARLY_EVENTS:
                self._early.append(event)
            return
        shape = extensions.operation(self.operation)[3]
        self._wire.send_event(rpc.encode(rpc.Kind.MESSAGE, 0, self._stream_id, event, shape))

    def on_end(self, cancel: Callable[[], None]) -> None:
        """Calls `cancel` when the stream ends; at once if it already has."""
        if self.ended:
            cancel()
            return
        self._cancels.append(cancel)

    def answer(self, body: dict[str, Any]) -> None:
        """Sends the response and, on a subscription, the events that came before it."""
        if self.ended or self.resumed:
            return
        kind, _, shape, _ = extensions.operation(self.operation)
        unary = kind == "unary"
        flags = rpc.TERMINATE if unary else 0
        self._wire.send(rpc.encode(rpc.Kind.MESSAGE, flags, self._stream_id, rpc.dump(body), shape))
        self._answered = True
        if unary:
            self.end()
            return
        early, self._early = self._early, []
        for event in early:
            self.emit_encoded(event)

    @property
    def is_waiting(self) -> bool:
        """Whether the client waits for the answer."""
        return not (self._answered or self.ended)

    def carry(self) -> handover.Stream:
        return handover.Stream(self._stream_id, self.operation, self._request, self._answered)

    def go_on(self) -> None:
        """The subscription stands again: events from now on; those that greet a new subscriber are known already."""
        self._early.clear()
        self._answered = True

    def fail(self, refusal: rpc.OperationError) -> None:
        """Sends an error, which ends the stream."""
        if self.ended:
            return
        self._wire.send(rpc.error(self._stream_id, refusal))
        self.end()

    def end(self) -> None:
        """Ends the stream on our side without sending anything. Twice is harmless."""
        if self.ended:
            return
        self.ended = True
        self._wire.forget(self._stream_id)
        cancels, self._cancels = self._cancels, []
        with contextlib.ExitStack() as all_of_them:  # one that fails must not keep the others from being called
            for cancel in reversed(cancels):
                all_of_them.callback(cancel)
