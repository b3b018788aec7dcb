"""The bounds of the IPC server: what one client, and all together, may make it hold."""

from __future__ import annotations

from msgspec import Struct

from nucleus.wire import eventstream


class Limits(Struct, frozen=True):
    """Bounds of the server; times in seconds."""

    frame_bytes: int = eventstream.MAX_FRAME_BYTES
    stranger_frame_bytes: int = 16 * 1024  # before the handshake
    held_bytes: int = 128 * 1024 * 1024  # incomplete frames of all connections
    queued_bytes: int = 4 * 1024 * 1024  # to send, for each connection
    streams: int = 1024  # open at a time, for each connection
    connections: int = 512
    connections_of_one: int = 64  # of one component
    handshake_s: float = 10.0  # the clients' own connect timeout
    refusal_s: float = 2.0  # for a refused client to read that it is
    incomplete_s: float = 30.0
    stalled_s: float = 10.0
    tick_s: float = 1.0
