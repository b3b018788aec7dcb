"""Frames between the model agent and those who talk to it over its Unix socket (standard library only).

A frame is a prelude `header length u32, body length u32` (big-endian), then the header (a JSON object in UTF-8), then
the body (raw bytes, mostly tensors). Every request is one frame and is answered with one frame, in order, on the same
connection. Lengths are checked against the bounds below before anything is read or kept.

A reply's header says `"ok": true`, or `"ok": false` with `message` and `code`: NOT_READY, INVALID_ARGUMENT, BUSY, INTERNAL,
UNAUTHENTICATED, PERMISSION_DENIED, MODEL_CRASHED, or why a model was refused. A header too large for its bound (a list of many
models) is the body behind the header `{"ok": true, "continued": true}`. The operations and their headers are described
in agent_server.py. With one operation, `share`, a descriptor travels beside the bytes (SCM_RIGHTS).

`send` and `receive` are for a socket in any state. `Reader` and `write` are for one that blocks and was given to `bound`:
a small frame is one system call for each side.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import socket
import struct
import sys
import time
from typing import Any

PRELUDE = struct.Struct(">II")
HEADER_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 16 * 1024 * 1024  # a batch of ten 640x640 RGB float images and room; bigger ones belong in a file
_CHUNK_BYTES = 64 * 1024
_STEP_BYTES = 2 * 1024 * 1024  # of a body at first
_ONE_DESCRIPTOR = socket.CMSG_LEN(array.array("i").itemsize)  # of ancillary data: the kernel drops any further one
_LONGEST_S = 1e6


class FrameError(Exception):
    """The other side sent what is no frame, or one above the bounds; the connection cannot be used any more."""


class ClosedError(Exception):
    """The other side closed the connection between two frames."""


class Reader:
    """Takes frames from a connection that blocks, and keeps what came of the next one."""

    def __init__(self, connection: socket.socket, *, descriptors: bool = False) -> None:
        self._connection = connection
        self._descriptors = descriptors  # whether one may come beside a frame
        self._kept = b""
        self._descriptor = -1

    def frame(self, rest_s: float) -> tuple[bytes, bytes | bytearray]:
        """The text of the next frame's header, and its body.

        The first bytes are waited for as long as `bound` said (BlockingIOError), the others `rest_s`. Raises as `receive`.
        """
        data = self._kept or self._more()
        if not data:
            raise ClosedError("the connection was closed")
        if len(data) >= PRELUDE.size:
            header_bytes, body_bytes = PRELUDE.unpack_from(data)
            begin = PRELUDE.size + header_bytes
            if len(data) == begin + body_bytes and header_bytes <= HEADER_LIMIT_BYTES:
                self._kept = b""
                return data[PRELUDE.size : begin], data[begin:]
        self._kept = b""
        try:
            return self._assembled(data, time.monotonic() + rest_s)
        finally:
            with contextlib.suppress(OSError):
                self._connection.settimeout(None)

    def descriptor(self) -> int:
        """The descriptor that came last, for the caller to close; -1 for none."""
        taken, self._descriptor = self._descriptor, -1
        return taken

    def close(self) -> None:
        """Closes a descriptor nobody asked for; the connection is its owner's."""
        if self._descriptor >= 0:
            os.close(self.descriptor())

    def _assembled(self, data: bytes, end: float) -> tuple[bytes, bytes | bytearray]:
        """The same for a frame in pieces, or with others behind it."""
        data = self._until(data, PRELUDE.size, end)
        header_bytes, body_bytes = PRELUDE.unpack_from(data)
        _check(header_bytes, body_bytes)
        begin = PRELUDE.size + header_bytes
        data = self._until(data, begin, end)
        text, rest = data[PRELUDE.size : begin], data[begin:]
        if len(rest) >= body_bytes:
            self._kept = rest[body_bytes:]
            return text, rest[:body_bytes]
        # Memory for what has come, not for what is announced: one who only announces would take it from all others.
        body = bytearray(min(body_bytes, _STEP_BYTES))
        body[: len(rest)] = rest
        view, done = memoryview(body), len(rest)
        while done < body_bytes:
            if done == len(body):
                view.release()
                body.extend(bytes(min(body_bytes - done, done)))
                view = memoryview(body)
            self._connection.settimeout(max(end - time.monotonic(), 0.001))
            count = self._connection.recv_into(view[done:])
            if count == 0:
                raise FrameError("the connection ended in the middle of a frame")
            done += count
        return text, body

    def _until(self, data: bytes, size: int, end: float) -> bytes:
        while len(data) < size:
            self._connection.settimeout(max(end - time.monotonic(), 0.001))
            more = self._more()
            if not more:
                raise FrameError("the connection ended in the middle of a frame")
            data += more
        return data

    def _more(self) -> bytes:
        if not self._descriptors:
            return self._connection.recv(_CHUNK_BYTES)
        data, ancillary, _, _ = self._connection.recvmsg(_CHUNK_BYTES, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.close()
                self._descriptor = array.array("i", content)[0]
        return data


def bound(connection: socket.socket, receive_s: float, send_s: float) -> None:
    """Makes a connection block, and bounds each single call that receives or sends: BlockingIOError after so many seconds.

    By the socket's own options, because Python's time limit takes a poll before each call: 7 us of a round trip of 13.
    """
    connection.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
        whole, part = divmod(int(min(max(seconds, 0.001), _LONGEST_S) * 1e6), 1_000_000)
        try:
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, part))
        except OSError:  # a system of 32 bits whose time has 64
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@qq", whole, part))


def sealed_memory(size: int) -> int | None:
    """A descriptor of memory whose size nobody can change any more, None where the system has none; the caller closes it."""
    fcntl: Any = importlib.import_module("fcntl") if sys.platform.startswith("linux") else None
    if not hasattr(os, "memfd_create") or not hasattr(fcntl, "F_ADD_SEALS"):
        return None
    try:
        descriptor = os.memfd_create("marram-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def encode(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """A frame up to its body; raises FrameError if it is above the bounds."""
    text = json.dumps(header, separators=(",", ":")).encode()
    _check(len(text), body_bytes)
    return PRELUDE.pack(len(text), body_bytes) + text


def reply(header: dict[str, Any]) -> tuple[bytes, bytes]:
    """A reply's frame up to its body, and the body. A header above the bounds is the body behind `{"continued": true}`."""
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) <= HEADER_LIMIT_BYTES:
        return PRELUDE.pack(len(text), 0) + text, b""
    return encode({"ok": header.get("ok"), "continued": True}, len(text)), text


def decode(text: bytes) -> dict[str, Any]:
    """The header in `text`; raises FrameError."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"cannot read a frame's header: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("cannot read a frame's header: it is no JSON object")
    return header


def write(connection: socket.socket, head: bytes, body: bytes | bytearray | memoryview, longest_s: float) -> None:
    """Sends a frame that `encode` began, on a connection that blocks; TimeoutError after `longest_s`."""
    done = connection.sendmsg([head, body]) if body else connection.send(head)
    if done == len(head) + len(body):
        return
    connection.settimeout(max(longest_s, 0.001))  # of both calls together what is left to send
    try:
        connection.sendall(memoryview(head)[done:] if done < len(head) else b"")
        connection.sendall(memoryview(body)[max(done - len(head), 0) :])
    finally:
        with contextlib.suppress(OSError):
            connection.settimeout(None)


def send(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Writes one frame; raises FrameError before writing anything if it is above the bounds."""
    connection.sendall(encode(header, len(body)) + body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Reads one frame; raises ClosedError at a clean end, FrameError for anything that is no frame."""
    first = connection.recv(PRELUDE.size)
    if not first:
        raise ClosedError("the connection was closed")
    prelude = first + _exactly(connection, PRELUDE.size - len(first))
    header_bytes, body_bytes = PRELUDE.unpack(prelude)
    _check(header_bytes, body_bytes)
    header, body = decode(_exactly(connection, header_bytes)), _exactly(connection, body_bytes)
    return (decode(body), b"") if header.get("continued") is True else (header, body)


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
