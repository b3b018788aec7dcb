"""One TLS connection of the device server: bytes of the socket in, plaintext out, with flow control both ways.

asyncio's own TLS would hide the peer's certificate; `cloud.core.tls` yields its fingerprint. All connections share one
read buffer: it is emptied before the loop reads from another socket.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from cloud.core import tls

READ_BYTES = 64 * 1024
LINGER_S = 2.0
_HIGH_WATER_BYTES = 256 * 1024  # of plaintext not yet taken, and of bytes not yet sent
_PIECE_BYTES = 64 * 1024


class Wire(asyncio.BufferedProtocol):
    """Made by the server for each connection; `opened` and `closed` tell the server of its life."""

    def __init__(
        self,
        context: ssl.SSLContext,
        buffer: memoryview,
        opened: Callable[[Wire], None],
        closed: Callable[[Wire], None],
    ) -> None:
        self._machine = tls.Machine(context)
        self._buffer = buffer
        self._opened = opened
        self._closed = closed
        self._plain = bytearray()
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._discarding = False
        self._linger: asyncio.TimerHandle | None = None

    @property
    def fingerprint(self) -> str:
        """Of the client's certificate, "" without one."""
        return self._machine.peer_fingerprint

    async def receive(self) -> bytes:
        """The plaintext that has arrived, waiting for some; b"" when there will be no more."""
        while not self._plain and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        taken = bytes(self._plain)
        self._plain.clear()
        if self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return taken

    async def send(self, data: bytes) -> None:
        """Sends plaintext, waiting for a slow peer. Raises ConnectionResetError if it is gone."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            await self._may_write.wait()
            if self._ended or self._transport is None:
                raise ConnectionResetError("the device closed the connection")
            self._machine.send(view[start : start + _PIECE_BYTES].tobytes())
            self._flush()

    def close(self) -> None:
        """Says goodbye; what is buffered is still sent.

        The peer has LINGER_S to read it and to close: closing a socket with unread bytes resets the connection, and a
        refusal sent to a peer that is still sending would be lost.
        """
        if self._transport is None or self._transport.is_closing():
            return
        self._machine.close()
        self._flush()
        if self._ended:
            self._transport.close()
            return
        self._ended = self._discarding = True
        self._transport.resume_reading()
        self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Drops the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.BufferedProtocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        self._opened(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self._transport is not None  # bytes come after connection_made
        if self._discarding:
            return
        try:
            self._plain += self._machine.receive(self._buffer[:nbytes])
        except ssl.SSLError:
            # A peer without TLS, or with a certificate of another authority: it gets the alert, and nobody else is told.
            self._end()
            self._flush()
            self._transport.close()
            return
        self._flush()
        if self._machine.peer_closed:
            self._end()
        if len(self._plain) > _HIGH_WATER_BYTES:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        self._end()
        return False

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()
        self._may_write.set()
        if self._linger is not None:
            self._linger.cancel()
        self._closed(self)

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()

    def _flush(self) -> None:
        data = self._machine.outgoing()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
