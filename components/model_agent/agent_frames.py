"""Frames between the model agent and those who talk to it over its Unix socket (standard library only).

A frame is a prelude `header length u32, body length u32` (big-endian), then the header (a JSON object in UTF-8), then
the body (raw bytes, mostly tensors). Every request is one frame and is answered with one frame, in order, on the same
connection. Lengths are checked against the bounds below before anything is read or kept.

A reply's header says `"ok": true`, or `"ok": false` with `code` (NOT_READY, INVALID_ARGUMENT, REFUSED, BUSY, INTERNAL) and
`message`. The operations and their headers are described in agent.py.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

PRELUDE = struct.Struct(">II")
HEADER_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 16 * 1024 * 1024  # a batch of ten 640x640 RGB float images and room; bigger ones belong in a file


class FrameError(Exception):
    """The other side sent what is no frame, or one above the bounds; the connection cannot be used any more."""


class ClosedError(Exception):
    """The other side closed the connection between two frames."""


def send(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Writes one frame; raises FrameError before writing anything if it is above the bounds."""
    text = json.dumps(header, separators=(",", ":")).encode()
    _check(len(text), len(body))
    connection.sendall(PRELUDE.pack(len(text), len(body)) + text + body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Reads one frame; raises ClosedError at a clean end, FrameError for anything that is no frame."""
    first = connection.recv(PRELUDE.size)
    if not first:
        raise ClosedError("the connection was closed")
    prelude = first + _exactly(connection, PRELUDE.size - len(first))
    header_bytes, body_bytes = PRELUDE.unpack(prelude)
    _check(header_bytes, body_bytes)
    text = _exactly(connection, header_bytes)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"cannot read a frame's header: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("cannot read a frame's header: it is no JSON object")
    return header, _exactly(connection, body_bytes)


def _check(header_bytes: int, body_bytes: int) -> None:
    if header_bytes > HEADER_LIMIT_BYTES:
        raise FrameError(f"a header of {header_bytes} bytes is above the limit of {HEADER_LIMIT_BYTES}")
    if body_bytes > BODY_LIMIT_BYTES:
        raise FrameError(f"a body of {body_bytes} bytes is above the limit of {BODY_LIMIT_BYTES}")


def _exactly(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    done = 0
    while done < size:
        count = connection.recv_into(view[done:])
        if count == 0:
            raise FrameError("the connection ended in the middle of a frame")
        done += count
    return bytes(buffer)
