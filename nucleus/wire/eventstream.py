"""The event-stream frame, without input or output (spec/ipc.md 1).

Layout, all integers big-endian:
    total u32, headers length u32, crc32(bytes 0..7) u32, headers, payload, crc32(everything before) u32
    a header: name length u8, name, type u8, value; strings and bytes carry a u16 length before them
Rules: a frame is 16 bytes to 24 MiB; nothing is allocated for a frame whose prelude is not proven by its crc.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator

from msgspec import Struct

MAX_FRAME_BYTES = 24 * 1024 * 1024  # the CRT client closes the connection above it
OVERHEAD_BYTES = 16  # prelude and the last crc
PRELUDE_BYTES = 12

TRUE, FALSE, INT8, INT16, INT32, INT64, BYTES, STRING, TIMESTAMP, UUID = range(10)
_FIXED = {TRUE: 0, FALSE: 0, INT8: 1, INT16: 2, INT32: 4, INT64: 8, TIMESTAMP: 8, UUID: 16}
_INTEGERS = frozenset({INT8, INT16, INT32, INT64, TIMESTAMP})
_MAX_VALUE_BYTES = 32767
_MAX_HEADERS = 1024

_PRELUDE = struct.Struct(">II")
_U32 = struct.Struct(">I")


class FrameError(Exception):
    """The peer broke the framing; the connection cannot be read any further."""


class Header(Struct, frozen=True):
    """`value` is bool, int, bytes or str according to `kind`; `offset` is where the value begins in its block."""

    name: str
    kind: int
    value: bool | int | bytes | str
    offset: int = 0


class Frame(Struct, frozen=True):
    """The raw header block and the payload of one frame whose checksums are right."""

    headers: bytes
    payload: bytes


def encode(headers: bytes, payload: bytes) -> bytes:
    """One frame of an encoded header block and a payload."""
    begin = start(len(headers), len(payload)) + headers
    return b"".join((begin, payload, _U32.pack(zlib.crc32(payload, zlib.crc32(begin)))))


def start(headers_size: int, payload_size: int) -> bytes:
    """The prelude of a frame."""
    lengths = _PRELUDE.pack(OVERHEAD_BYTES + headers_size + payload_size, headers_size)
    return lengths + _U32.pack(zlib.crc32(lengths))


def string(name: str, value: str) -> bytes:
    """An encoded string header."""
    data = value.encode()
    return _name(name) + bytes((STRING,)) + len(data).to_bytes(2, "big") + data


def int32(name: str, value: int) -> bytes:
    """An encoded i32 header."""
    return _name(name) + bytes((INT32,)) + value.to_bytes(4, "big", signed=True)


def header(name: str, kind: int, value: bool | int | bytes | str) -> bytes:
    """An encoded header of any type; `value` as in Header."""
    start = _name(name) + bytes((kind,))
    if kind in (BYTES, STRING):
        data = value.encode() if isinstance(value, str) else bytes(value) if isinstance(value, bytes) else b""
        return start + len(data).to_bytes(2, "big") + data
    if kind in _INTEGERS:
        return start + int(value).to_bytes(_FIXED[kind], "big", signed=True)
    return start + (value if isinstance(value, bytes) else b"")


def _name(name: str) -> bytes:
    data = name.encode()
    return bytes((len(data),)) + data


def read_headers(block: bytes) -> tuple[Header, ...]:
    """The headers of a block in their order. Raises FrameError."""
    found = []
    at = 0
    while at < len(block):
        one, at = _read_header(block, at)
        found.append(one)
        if len(found) > _MAX_HEADERS:
            raise FrameError(f"cannot read a frame: more than {_MAX_HEADERS} headers")
    return tuple(found)


def _read_header(block: bytes, at: int) -> tuple[Header, int]:
    """The header at `at` and where the next one begins."""
    value_at = at + 1 + block[at] + 1
    if value_at > len(block):
        raise FrameError("cannot read a frame: a header's name is cut off")
    kind = block[value_at - 1]
    if kind in (BYTES, STRING):
        size = int.from_bytes(block[value_at : value_at + 2], "big")
        value_at += 2
    else:
        size = _FIXED.get(kind, -1)
    end = value_at + size
    if size < 0 or size > _MAX_VALUE_BYTES or end > len(block):
        raise FrameError(f"cannot read a frame: a header of type {kind} is wrong or cut off")
    try:
        name = block[at + 1 : at + 1 + block[at]].decode()
        return Header(name, kind, _value(kind, block[value_at:end]), value_at), end
    except UnicodeDecodeError:
        raise FrameError("cannot read a frame: a header is not UTF-8") from None


def _value(kind: int, data: bytes) -> bool | int | bytes | str:
    if kind == STRING:
        return data.decode()
    if kind in _INTEGERS:
        return int.from_bytes(data, "big", signed=True)
    if kind in (TRUE, FALSE):
        return kind == TRUE
    return data


class Decoder:
    """Cuts a byte stream into frames and keeps only what is not complete yet.

    `limit` may be raised after the handshake: a stranger may not make us hold much.
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._tail = bytearray()
        self._needed = PRELUDE_BYTES  # bytes the tail must reach before it is worth looking again

    @property
    def held(self) -> bytes:
        """The beginning of the frame that is not complete."""
        return bytes(self._tail)

    @property
    def held_bytes(self) -> int:
        """Bytes of the frame that is not complete; 0 between frames."""
        return len(self._tail)

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Yields the frames that `data` completes, copied out of it; must be exhausted before the buffer is reused.

        Raises FrameError for a wrong checksum or length; the decoder is of no use then.
        """
        if not self._tail:
            used = yield from self._cut(memoryview(data))
            self._tail += data[used:]
            return
        self._tail += data
        if len(self._tail) < self._needed:
            return
        whole = bytes(self._tail)
        self._tail.clear()
        used = yield from self._cut(memoryview(whole))
        self._tail += whole[used:]

    def _cut(self, data: memoryview) -> Generator[Frame, None, int]:
        at = 0
        size = len(data)
        self._needed = PRELUDE_BYTES
        while size - at >= PRELUDE_BYTES:
            total, headers_size = _PRELUDE.unpack_from(data, at)
            if _U32.unpack_from(data, at + 8)[0] != zlib.crc32(data[at : at + 8]):
                raise FrameError("cannot read a frame: the checksum of its prelude is wrong")
            if not OVERHEAD_BYTES <= total <= self.limit or headers_size > total - OVERHEAD_BYTES:
                raise FrameError(
                    f"cannot read a frame: {total} bytes with {headers_size} of headers (limit {self.limit})"
                )
            if size - at < total:
                self._needed = total
                break
            end = at + total - 4
            if _U32.unpack_from(data, end)[0] != zlib.crc32(data[at:end]):
                raise FrameError("cannot read a frame: its checksum is wrong")
            headers_end = at + PRELUDE_BYTES + headers_size
            yield Frame(bytes(data[at + PRELUDE_BYTES : headers_end]), bytes(data[headers_end:end]))
            at += total
        return at
