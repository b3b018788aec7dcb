"""One client's connection: frames in, frames out, and every bound a client can run into.

States: new (waiting for CONNECT) -> open (identity bound) -> closing. Rules:
- All connections receive into one shared buffer; a connection keeps only the frame that is not complete yet.
- Frames to send are collected and written once per turn of the loop.
- An event for a client whose queue is over `queued_bytes` is dropped and counted; answers are not dropped, instead its
  further requests wait and no more are read. After `stalled_s` over that bound without progress the connection is closed.
- What a client does wrong ends its own connection and nothing else.
"""

from __future__ import annotations

import asyncio
import collections
from typing import Protocol, cast

from nucleus.ipc import bounds, call, ports
from nucleus.wire import eventstream, rpc

Limits = bounds.Limits


class Owner(Protocol):
    """The server as a connection sees it."""

    limits: Limits
    buffer: memoryview
    reader: rpc.Reader
    log: ports.Log
    ports: ports.Ports

    def accepted(self, connection: Connection) -> bool: ...
    def admit(self, token: str) -> str | None: ...
    def serve(self, one: call.Call, payload: bytes) -> None: ...
    def lost(self, connection: Connection) -> None: ...
    def held(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one accepted socket."""

    def __init__(self, owner: Owner) -> None:
        self.component = ""
        self.dropped_events = 0
        self._told_dropped = 0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()  # when the incomplete frame began
        self._shake_by = self._since + owner.limits.handshake_s
        self._refused = False
        self._decoder = eventstream.Decoder(owner.limits.stranger_frame_bytes)
        self._waiting: collections.deque[rpc.Message] = collections.deque()
        self._calls: dict[int, call.Call] = {}
        self._highest_stream = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._written_bytes = 0
        self._closing = self._taking = self._held = False
        self._progress = (0, self._since)  # bytes the peer has taken, and when that last changed

    # ---- asyncio's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        high = self._owner.limits.queued_bytes
        self._transport.set_write_buffer_limits(high=high, low=high // 2)
        if not self._owner.accepted(self):
            self._closing = True
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing or self._refused:
            return
        self._feed(self._owner.buffer[:nbytes])

    def _feed(self, data: memoryview) -> None:
        held = self._decoder.held_bytes
        self._taking = True
        try:
            for frame in self._decoder.feed(data):
                self._take(self._owner.reader.read(frame))
                held = 0
                if self._transport.is_closing() or self._refused:
                    return
        except eventstream.FrameError as error:
            self._close(str(error))
        except rpc.ProtocolError as error:
            self._fail(str(error))
        finally:
            self._taking = False
            self._flush()
        if not held:
            self._since = self._loop.time()
        if self._decoder.held_bytes > len(self._owner.buffer):
            self._owner.held(self)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._since = self._loop.time()
        self._continue()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        for one in list(self._calls.values()):
            one.end()
        self._owner.lost(self)

    # ---- frames in ---------------------------------------------------------------------------------------------

    def _take(self, message: rpc.Message) -> None:
        """Serves a message, or keeps it while the client does not read what it has asked for already."""
        if self._waiting or self._is_behind():
            self._waiting.append(message)  # at most one buffer full: no more is read
            self._transport.pause_reading()
            return
        self._receive(message)

    def _continue(self) -> None:
        """Serves what waited, as far as the client has made room, and reads again after that."""
        if self._held:
            return
        try:
            while self._waiting and not self._closing and not self._is_behind():
                self._receive(self._waiting.popleft())
        except rpc.ProtocolError as error:
            self._fail(str(error))
        if not self._waiting and not self._closing and not self._is_behind():
            self._transport.resume_reading()

    def _receive(self, message: rpc.Message) -> None:
        kind = message.head.kind
        if not self.component:
            self._handshake(message)
            return
        if (kind in (rpc.Kind.MESSAGE, rpc.Kind.ERROR)) != (message.stream_id > 0):
            raise rpc.ProtocolError(f"message type {kind.name} is not allowed on stream {message.stream_id}")
        if message.stream_id:
            self._receive_on_stream(message)
        elif kind == rpc.Kind.PING:
            self.send(rpc.pong(message.frame))
        elif kind == rpc.Kind.CONNECT:
            raise rpc.ProtocolError("CONNECT came twice")
        elif kind in (rpc.Kind.PROTOCOL_ERROR, rpc.Kind.INTERNAL_ERROR):
            self._close("the client reported " + kind.name)

    def _handshake(self, message: rpc.Message) -> None:
        if message.head.kind != rpc.Kind.CONNECT or message.stream_id:
            raise rpc.ProtocolError("the first message must be CONNECT")
        component = self._identify(message)
        self.send(rpc.encode(rpc.Kind.CONNECT_ACK, rpc.ACCEPTED if component else 0, 0))
        if not component:
            # The client closes when it has read the answer; if we closed first it would see only a closed socket.
            self._refused = True
            self._shake_by = self._loop.time() + self._owner.limits.refusal_s
            self._owner.log.warning("ipc.connection_refused", why="the token is unknown, or has too many connections")
            return
        self.component = component
        self._decoder.limit = self._owner.limits.frame_bytes
        self._owner.log.debug("ipc.connected", component=component)

    def _identify(self, message: rpc.Message) -> str | None:
        if message.head.version != rpc.VERSION:
            return None
        try:
            body = rpc.load(message.frame.payload)
        except (ValueError, RecursionError):
            return None
        token = body.get("authToken") if isinstance(body, dict) else None
        return self._owner.admit(token) if isinstance(token, str) and token else None

    def _receive_on_stream(self, message: rpc.Message) -> None:
        stream_id = message.stream_id
        one = self._calls.get(stream_id)
        if message.head.flags & rpc.TERMINATE:
            if one is not None:
                one.end()
            return
        if one is not None:
            raise rpc.ProtocolError(f"stream {stream_id} takes one message only")
        if not message.head.operation:
            if stream_id > self._highest_stream:
                raise rpc.ProtocolError(f"stream {stream_id} is unknown and no operation is named")
            return  # it crossed our own end of that stream
        self._highest_stream = max(self._highest_stream, stream_id)
        one = call.Call(
            self.component, self._owner.ports, self, stream_id, message.head.operation, message.frame.payload
        )
        if len(self._calls) >= self._owner.limits.streams:
            one.fail(rpc.OperationError("ServiceError", f"cannot open more than {len(self._calls)} streams"))
            return
        self._calls[stream_id] = one
        self._owner.serve(one, message.frame.payload)

    # ---- frames out --------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queues a frame; nothing once the connection is closing."""
        if self._closing:
            return
        if not self._out and not self._taking:  # what is answered at once is written when the frames are taken
            self._loop.call_soon(self._flush)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def send_event(self, frame: bytes) -> None:
        """Queues an event, or drops and counts it when the client does not keep up."""
        if self._is_behind():
            self.dropped_events += 1
            return
        self.send(frame)

    def forget(self, stream_id: int) -> None:
        """Frees a stream id (call.Wire)."""
        self._calls.pop(stream_id, None)

    @property
    def held_bytes(self) -> int:
        """Bytes of a frame that is not complete."""
        return self._decoder.held_bytes

    def queued_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._out_bytes + self._transport.get_write_buffer_size()

    def _is_behind(self) -> bool:
        return self.queued_bytes() > self._owner.limits.queued_bytes

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._written_bytes += self._out_bytes
        self._out_bytes = 0
        if out and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._waiting:
            self._continue()

    # ---- to the next process image -------------------------------------------------------------------------------

    def hold(self) -> None:
        """Reads and serves nothing more: what the client sends stays with the kernel."""
        self._held = True
        self._transport.pause_reading()

    def calls(self) -> list[call.Call]:
        """Those whose stream is open."""
        return list(self._calls.values())

    # ---- the end -----------------------------------------------------------------------------------------------

    def _fail(self, why: str) -> None:
        """Tells the client what it did wrong and closes."""
        self.send(rpc.protocol_error(why))
        self._close(why)

    def _close(self, why: str) -> None:
        if self._closing:
            return
        self._owner.log.warning("ipc.connection_closed", component=self.component or "?", why=why)
        self.close()

    def close(self) -> None:
        """Writes what is queued and closes; `tick` aborts a peer that does not take it."""
        if self._closing:
            return
        self._flush()
        self._closing = True
        self._progress = (self._progress[0], self._loop.time())
        for one in list(self._calls.values()):
            one.end()
        self._transport.close()

    def abort(self, why: str) -> None:
        """Closes without writing what is queued."""
        self._owner.log.warning(
            "ipc.connection_aborted", component=self.component or "?", why=why, dropped_events=self.dropped_events
        )
        self._closing = True
        self._transport.abort()

    def tick(self, now: float) -> None:
        """Enforces the time limits; called about once a second."""
        limits = self._owner.limits
        if self.dropped_events != self._told_dropped:
            self._told_dropped = self.dropped_events
            self._owner.log.warning("ipc.events_dropped", component=self.component, so_far=self.dropped_events)
        taken = self._written_bytes - self._transport.get_write_buffer_size()
        if taken != self._progress[0] or not (self._closing or self._is_behind()):
            self._progress = (taken, now)
        if now - self._progress[1] > limits.stalled_s:
            self.abort(f"the client has not read for {limits.stalled_s:.0f} s")
        elif not self.component and now > self._shake_by:
            self.abort("it was refused" if self._refused else f"no CONNECT within {limits.handshake_s:.0f} s")
        elif self._transport.is_reading() and self._decoder.held_bytes and now - self._since > limits.incomplete_s:
            self.abort(f"a frame was not completed within {limits.incomplete_s:.0f} s")
