"""Connections that outlive the process image: how they are held, collected, and taken over (core/handover.py).

The old image stops reading, lets calls under way end, and describes every connection in one turn of the loop. The new image
first makes all subscriptions again, without answers, and only then serves what clients have sent meanwhile: no message
finds a subscriber missing. A call that does not end in time is carried out again by the new image if that changes nothing,
else it fails with words that say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from nucleus.core import handover
from nucleus.ipc import call, connection, ports
from nucleus.wire import eventstream, rpc

QUIET_S = 2.0  # for calls under way to end
WRITE_S = 0.1  # for clients to take what is written for them; the rest is carried
_LOOK_S = 0.002


async def quiet(connections: Collection[connection.Connection], quiet_s: float = QUIET_S) -> None:
    """Reads no more requests and waits until those under way are answered; at most `quiet_s`."""
    for one in connections:
        one.hold()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(quiet_s):
            while any(each.is_waiting for one in connections for each in one.calls()):  # noqa: ASYNC110  no hot path tells
                await asyncio.sleep(_LOOK_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WRITE_S):
            while any(one.queued_bytes() for one in connections):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)


def collect(connections: Collection[connection.Connection]) -> tuple[handover.Client, ...]:
    """Describes every open connection; whoever waits for an act that may not be done twice is told that it is unknown."""
    for each in [each for one in connections for each in one.calls()]:
        if each.is_waiting and not handover.is_repeatable(each.operation):
            what = f"cannot tell how {each.operation} ended: the nucleus is being restarted; look, then try again"
            each.fail(rpc.OperationError("ServiceError", what))
    return tuple(client for one in connections if (client := _describe(one)) is not None)


def _describe(one: connection.Connection) -> handover.Client | None:
    """All of a connection as it is in this moment, None if it is closing; reads what only the connection may change."""
    transport = one._transport
    if one._closing or one._refused or transport.is_closing():
        return None
    waiting = (eventstream.encode(each.frame.headers, each.frame.payload) for each in one._waiting)
    buffer = getattr(transport, "_buffer")  # noqa: B009  a bytearray, from Python 3.12 on a deque of pieces
    written = [buffer] if isinstance(buffer, bytearray) else buffer
    return handover.Client(
        descriptor=transport.get_extra_info("socket").fileno(),
        component=one.component,
        highest_stream=one._highest_stream,
        received=b"".join((*waiting, one._decoder.held)),
        unsent=b"".join((*written, *one._out)),
        dropped_events=one.dropped_events,
        streams=tuple(each.carry() for each in one.calls()),
    )


def listener(carried: handover.Sockets | None, path: Path) -> socket.socket | None:
    """The listening socket that was handed over, if it is the one of `path`."""
    if carried is None:
        return None
    found = socket.socket(fileno=carried.descriptor)
    if carried.path != str(path):
        found.close()
        return None
    found.setblocking(False)
    return found


async def take_over(
    owner: connection.Owner,
    clients: Collection[handover.Client],
    log: ports.Log,
    kind: Callable[[Any, handover.Client], Taken] | None = None,
) -> None:
    """Brings every connection back: all subscriptions first, then everything that was sent meanwhile."""
    taken = []
    for client in clients:
        made = (kind or Taken)(owner, client)
        await asyncio.get_running_loop().connect_accepted_socket(_giving(made), socket.socket(fileno=client.descriptor))
        taken.append(made)
    for made in taken:
        made.listen_again()
    for made in taken:
        made.go_on()
    log.info("ipc.taken_over", connections=len(taken), streams=sum(len(client.streams) for client in clients))


def _giving(made: Taken) -> Any:
    return lambda: made


class Taken(connection.Connection):
    """A connection that was accepted by the image before this one."""

    def __init__(self, owner: connection.Owner, client: handover.Client) -> None:
        super().__init__(owner)
        self._client = client
        self._received: bytearray | None = bytearray(client.received)  # None once it goes on
        self.component = client.component
        self._highest_stream = client.highest_stream
        self.dropped_events = self._told_dropped = client.dropped_events
        self._out, self._out_bytes = [client.unsent], len(client.unsent)
        if client.component:
            self._decoder.limit = owner.limits.frame_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leaves with the kernel, until it goes on, what the client sends: also the end of one that sends and closes."""
        super().connection_made(transport)
        self._transport.pause_reading()
        self._loop.call_soon(self._flush)

    def buffer_updated(self, nbytes: int) -> None:
        if self._received is None:
            super().buffer_updated(nbytes)
        else:
            self._received += self._owner.buffer[:nbytes]

    def listen_again(self) -> None:
        if self._closing:  # nobody would end what is opened for a client that is gone
            return
        for stream in self._client.streams:
            if stream.answered or not self.is_ours(stream):
                one = self._open(stream)
                one.resumed = stream.answered
                if self.is_ours(stream):
                    self._owner.serve(one, stream.request)
                if stream.answered:
                    one.go_on()

    def go_on(self) -> None:
        if self._closing:
            return
        for stream in self._client.streams:
            if not stream.answered and self.is_ours(stream):
                self._owner.serve(self._open(stream), stream.request)
        received, self._received = self._received, None
        if received and not self._closing:
            self._feed(memoryview(received))
        if not self._waiting and not self._closing:
            self._transport.resume_reading()

    def is_ours(self, stream: handover.Stream) -> bool:
        """Whether it is served here; else it is only kept (ipc/deputy.py)."""
        return True

    def _open(self, stream: handover.Stream) -> call.Call:
        one = call.Call(self.component, self._owner.ports, self, stream.stream_id, stream.operation, stream.request)
        self._calls[stream.stream_id] = one
        return one
