"""The RPC layer of the IPC on top of event-stream frames, without input or output (spec/ipc.md 2).

What flows in: frames. What flows out: `Message`, and encoded frames of answers, events and errors.
Rules: every frame carries `:message-type`, `:message-flags` and `:stream-id` as i32; dispatch is on `operation` alone,
because the C SDK sends other headers wrongly; a unary answer and every error end their stream, an event never does.
"""

from __future__ import annotations

import functools
import json
import zlib
from enum import IntEnum
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.wire import eventstream

NAMESPACE = "aws.greengrass#"
SERVICE = NAMESPACE + "GreengrassCoreIPC"
VERSION = "0.1.0"
ACCEPTED = 1
TERMINATE = 2

_HEADS_KEPT = 256  # a component repeats a handful of header blocks
_HEAD_KEPT_BYTES = 512
_STREAM_ID = b"\x0a:stream-id\x04"


class Kind(IntEnum):
    """`:message-type`; the first two belong to streams, the others to stream 0."""

    MESSAGE = 0
    ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class ProtocolError(Exception):
    """The peer broke the rules of the RPC layer; it is told so and the connection ends."""


class OperationError(Exception):
    """An error shape of the model for one operation, e.g. `OperationError("ResourceNotFoundError", "Key not found")`.

    `members` are the shape's further members under their wire names.
    """

    def __init__(self, shape: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.shape = shape
        self.message = message
        self.members = members


class Head(Struct, frozen=True):
    """What the header block says, without the stream id. `operation` comes without its namespace."""

    kind: Kind
    flags: int
    operation: str
    version: str


class Message(Struct, frozen=True):
    """One message of the peer."""

    head: Head
    stream_id: int
    frame: eventstream.Frame


class Reader:
    """Reads header blocks, remembering the last ones: the stream id is cut out and the rest compared.

    One reader serves all connections of a server.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], Head] = {}

    def read(self, frame: eventstream.Frame) -> Message:
        """Raises ProtocolError for missing or mistyped headers, FrameError for a block that cannot be read."""
        block = frame.headers
        at = block.find(_STREAM_ID) + len(_STREAM_ID)
        key = (at, block[:at] + block[at + 4 :])
        head = self._known.get(key)
        if head is not None:
            return Message(head, int.from_bytes(block[at : at + 4], "big", signed=True), frame)
        head, stream_id, offset = _read_head(block)
        if offset == at and len(block) <= _HEAD_KEPT_BYTES:
            if len(self._known) >= _HEADS_KEPT:
                self._known.clear()
            self._known[key] = head
        return Message(head, stream_id, frame)


def _read_head(block: bytes) -> tuple[Head, int, int]:
    """The head, the stream id and where its four bytes stand."""
    found = {header.name.lower(): header for header in eventstream.read_headers(block)}

    def integer(name: str) -> int:
        header = found.get(name)
        if header is None or header.kind != eventstream.INT32:
            raise ProtocolError(f"{name} is missing or no 32-bit integer")
        return int(header.value)

    def text(name: str) -> str:
        header = found.get(name)
        return header.value if header is not None and isinstance(header.value, str) else ""

    kind = integer(":message-type")
    if kind not in Kind.__members__.values():
        raise ProtocolError(f"message type {kind} is unknown")
    head = Head(Kind(kind), integer(":message-flags"), text("operation").removeprefix(NAMESPACE), text(":version"))
    return head, integer(":stream-id"), found[":stream-id"].offset


@functools.lru_cache(maxsize=512)
def _prefix(kind: Kind, flags: int, model: str) -> bytes:
    """All headers but the stream id, whose header comes last."""
    body = (eventstream.string(":content-type", "application/json"),) if model or kind >= Kind.PROTOCOL_ERROR else ()
    shape = (eventstream.string("service-model-type", NAMESPACE + model),) if model else ()
    numbers = (eventstream.int32(":message-type", kind), eventstream.int32(":message-flags", flags), _STREAM_ID)
    return b"".join((*body, *shape, *numbers))


def encode(kind: Kind, flags: int, stream_id: int, payload: bytes = b"", model: str = "") -> bytes:
    """One frame. With `model` (a shape's name without namespace) the payload is a JSON body."""
    start, checksum = _start(kind, flags, model, len(payload))
    rest = stream_id.to_bytes(4, "big", signed=True)
    checksum = zlib.crc32(payload, zlib.crc32(rest, checksum))
    return b"".join((start, rest, payload, checksum.to_bytes(4, "big")))


@functools.lru_cache(maxsize=2048)
def _start(kind: Kind, flags: int, model: str, size: int) -> tuple[bytes, int]:
    """Everything before the stream id in a frame with a payload of `size` bytes, and its checksum."""
    prefix = _prefix(kind, flags, model)
    whole = eventstream.start(len(prefix) + 4, size) + prefix
    return whole, zlib.crc32(whole)


def connect(token: str) -> bytes:
    """A client's first frame."""
    headers = eventstream.string(":version", VERSION) + _prefix(Kind.CONNECT, 0, "") + bytes(4)
    return eventstream.encode(headers, json.dumps({"authToken": token}).encode())


def pong(ping: eventstream.Frame) -> bytes:
    """The answer to a ping: its payload and its own headers come back."""
    own = (h for h in eventstream.read_headers(ping.headers) if not h.name.startswith(":"))
    headers = b"".join(eventstream.header(h.name, h.kind, h.value) for h in own)
    return eventstream.encode(headers + _prefix(Kind.PING_RESPONSE, 0, "") + bytes(4), ping.payload)


def error(stream_id: int, refusal: OperationError) -> bytes:
    """The last frame of a stream: all four members, because every client reads another one (spec/ipc.md 2.6)."""
    body = refusal.members | {
        "message": refusal.message,
        "_message": refusal.message,
        "_service": SERVICE,
        "_errorCode": refusal.shape,
    }
    return encode(Kind.ERROR, TERMINATE, stream_id, dump(body), refusal.shape)


def protocol_error(message: str, kind: Kind = Kind.PROTOCOL_ERROR) -> bytes:
    """The last frame of a connection."""
    return encode(kind, 0, 0, dump({"message": message}))


def load(data: bytes) -> Any:
    """Decodes JSON as lenient as the clients are: NaN and Infinity become null, lone surrogates and a BOM pass.

    Raises ValueError or RecursionError.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return json.loads(data.decode("utf-8-sig", "surrogatepass"), parse_constant=lambda _: None)


def dump(value: Any) -> bytes:
    """Encodes JSON; integers stay integers, an infinite number becomes null as in JavaScript."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate: only its escape can travel
        return json.dumps(value).encode()
