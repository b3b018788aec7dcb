"""A small synchronous client of the Greengrass IPC for components: one file, standard library only, no threads.

Copy this file into an artifact, or use it from an installed Marram. Inside a component:

    with Client() as ipc:                                   # socket and token come from the environment
        ipc.publish("turbines/alarms", {"turbine": "R80711"})
        with ipc.subscribe("SubscribeToTopic", {"topic": "turbines/#"}) as messages:
            for event in messages:
                print(event)

Requests, responses and events are the model's JSON objects with wire names (`topicName`, `publishMessage`, blobs as base64
text). While a call waits for its answer, events of open subscriptions are kept for their iterators, so both work side by
side. One client belongs to one thread. A broken connection does not come back: make a new client.
"""

from __future__ import annotations

import binascii
import collections
import json
import os
import select
import socket
import struct
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and pathlib would cost a component a megabyte
    from collections.abc import Iterator
    from typing import Any

SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE = "SVCUID"  # noqa: S105 the name of a variable
EVENTS_KEPT = 10000  # for each subscription; the oldest are dropped and counted above it

_NAMESPACE = "aws.greengrass#"
_PATH_LIMIT = 107  # bytes of a Unix socket address
_MAX_FRAME = 24 * 1024 * 1024
_MESSAGE, _ERROR, _PING, _PONG, _CONNECT, _CONNECT_ACK, _PROTOCOL_ERROR, _INTERNAL_ERROR = range(8)
_ACCEPTED = 1
_TERMINATE = 2


class IPCError(Exception):
    """The nucleus refused an operation, or the connection failed (code `ConnectionError` or `Timeout`).

    `code` is the error's shape, e.g. UnauthorizedError; `body` the whole error object.
    """

    def __init__(self, code: str, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.body = body or {}


class Client:
    """A connection, ready when the constructor returns. `timeout_s` bounds connecting and each call.

    Raises IPCError: `AccessDenied` for a wrong token, `ConnectionError` when nobody listens.
    """

    def __init__(self, socket_path: str = "", token: str = "", *, timeout_s: float = 10.0) -> None:
        self.timeout_s = timeout_s
        self._buffer = bytearray()
        self._stream_id = 0
        self._waiting: dict[int, tuple[int, bytes] | None] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._accepted: bool | None = None
        self._socket = _connect(socket_path or _variable(SOCKET_VARIABLE))
        self._handshake(token or _variable(TOKEN_VARIABLE))

    def call(self, operation: str, request: dict[str, Any] | None = None, *, timeout_s: float = 0) -> dict[str, Any]:
        """One operation by its short name, e.g. `call("GetConfiguration", {"keyPath": ["rate"]})`. Raises IPCError."""
        return self._answer(self._open(operation, request), operation, timeout_s or self.timeout_s)

    def subscribe(self, operation: str, request: dict[str, Any] | None = None) -> Subscription:
        """Opens a subscription; returns when the nucleus has accepted it. Raises IPCError."""
        subscription = Subscription(self, self._stream_id + 1)
        self._subscriptions[self._stream_id + 1] = subscription
        stream_id = self._open(operation, request)
        try:
            subscription.response = self._answer(stream_id, operation, self.timeout_s)
        except BaseException:
            self._subscriptions.pop(stream_id, None)
            raise
        return subscription

    def publish(self, topic: str, message: Any) -> None:
        """Publishes locally: bytes as a binary message, anything else as JSON."""
        self.call("PublishToTopic", {"topic": topic, "publishMessage": _message(message)})

    def publish_to_iot_core(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Hands a message for the cloud to the nucleus; it is in the nucleus's spool when this returns."""
        text = binascii.b2a_base64(payload, newline=False).decode()
        self.call("PublishToIoTCore", {"topicName": topic, "qos": str(qos), "payload": text})

    def update_state(self, state: str) -> None:
        """Reports the component's own state: RUNNING or ERRORED."""
        self.call("UpdateState", {"state": state})

    def get_configuration(self, *key_path: str, component: str = "") -> Any:
        """The value at a key path, a leaf unwrapped."""
        of_whom = {"componentName": component} if component else {}
        value = self.call("GetConfiguration", {"keyPath": list(key_path), **of_whom})["value"]
        if key_path and isinstance(value, dict) and [name.lower() for name in value] == [key_path[-1].lower()]:
            return next(iter(value.values()))
        return value

    def close(self) -> None:
        """Closes the connection and with it every subscription."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- streams -------------------------------------------------------------------------------------------------

    def _handshake(self, token: str) -> None:
        deadline = time.monotonic() + self.timeout_s
        headers = _string(":version", "0.1.0") + _numbers(_CONNECT, 0, 0)
        self._send(_frame(headers, json.dumps({"authToken": token}).encode()), deadline)
        while self._accepted is None:
            self._wait(deadline, "connect")
        if not self._accepted:
            self.close()
            raise IPCError("AccessDenied", "cannot connect: the nucleus does not know the token")

    def _open(self, operation: str, request: dict[str, Any] | None) -> int:
        self._stream_id += 1
        stream_id = self._stream_id
        self._waiting[stream_id] = None
        headers = (
            _string(":content-type", "application/json")
            + _string("service-model-type", f"{_NAMESPACE}{operation}Request")
            + _string("operation", _NAMESPACE + operation)
            + _numbers(_MESSAGE, 0, stream_id)
        )
        frame = _frame(headers, json.dumps(request or {}).encode())
        self._send(frame, time.monotonic() + self.timeout_s)
        return stream_id

    def _answer(self, stream_id: int, operation: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        try:
            while self._waiting[stream_id] is None:
                self._wait(deadline, operation)
        finally:
            answer = self._waiting.pop(stream_id, None)
        kind, payload = answer  # type: ignore[misc]
        body: dict[str, Any] = json.loads(payload or b"{}")
        if kind == _ERROR:
            raise _refusal(body)
        return body

    def _end(self, stream_id: int) -> None:
        """Ends a subscription on our side."""
        if self._subscriptions.pop(stream_id, None) is not None and self._socket.fileno() >= 0:
            self._send(_frame(_numbers(_MESSAGE, _TERMINATE, stream_id), b""), time.monotonic() + self.timeout_s)

    # ---- bytes ---------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes, deadline: float) -> None:
        """Sends all of a frame, reading meanwhile: the nucleus may not read before we do."""
        rest = memoryview(frame)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                if self._poll(deadline, "send", select.POLLIN | select.POLLOUT) & select.POLLIN:
                    self._receive()
            except OSError as error:
                raise self._broken(str(error)) from None

    def _wait(self, deadline: float | None, what: str) -> None:
        self._poll(deadline, what, select.POLLIN)
        self._receive()

    def _poll(self, deadline: float | None, what: str, events: int) -> int:
        """The events that are ready. Raises IPCError Timeout; without a deadline it waits for ever."""
        if self._socket.fileno() < 0:
            raise IPCError("ConnectionError", "the connection is closed")
        poll = select.poll()
        poll.register(self._socket, events)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poll.poll(left_ms)
        if not ready:
            raise IPCError("Timeout", f"cannot {what}: no answer in time")
        return ready[0][1]

    def _receive(self) -> None:
        try:
            data = self._socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._broken(str(error)) from None
        if not data:
            raise self._broken("the nucleus closed the connection")
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 12:
            total, size = struct.unpack_from(">II", self._buffer, at)
            if not 16 <= total <= _MAX_FRAME or size > total - 16:
                raise self._broken("a frame of impossible length came")
            if len(self._buffer) - at < total:
                break
            frame = bytes(self._buffer[at : at + total])
            at += total
            if zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "big"):
                raise self._broken("a damaged frame came")
            self._handle(_headers(frame[12 : 12 + size]), frame[12 + size : -4])
        del self._buffer[:at]

    def _handle(self, headers: dict[str, Any], payload: bytes) -> None:
        kind, flags, stream_id = headers[":message-type"], headers[":message-flags"], headers[":stream-id"]
        if kind == _CONNECT_ACK:
            self._accepted = bool(flags & _ACCEPTED)
        elif kind == _PING:
            self._send(_frame(_numbers(_PONG, 0, 0), payload), time.monotonic() + self.timeout_s)
        elif kind in (_PROTOCOL_ERROR, _INTERNAL_ERROR):
            raise self._broken(payload.decode(errors="replace"))
        elif self._waiting.get(stream_id, 0) is None:
            self._waiting[stream_id] = (kind, payload)
            if flags & _TERMINATE and stream_id in self._subscriptions:
                self._subscriptions.pop(stream_id).ended = True
        elif stream_id in self._subscriptions:
            self._subscriptions[stream_id].take(kind, flags, payload)

    def _broken(self, why: str) -> IPCError:
        self._socket.close()
        for subscription in self._subscriptions.values():
            subscription.ended = True
        self._subscriptions.clear()
        return IPCError("ConnectionError", why)


class Subscription:
    """The events of one subscription; iterate it, or ask `next_event` with a time limit."""

    def __init__(self, client: Client, stream_id: int) -> None:
        self.response: dict[str, Any] = {}
        self.ended = False
        self.dropped = 0
        self._client = client
        self._stream_id = stream_id
        self._events: collections.deque[dict[str, Any]] = collections.deque()
        self._error: IPCError | None = None

    def next_event(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next event, None after the time limit or when the subscription has ended. Raises IPCError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            try:
                self._client._wait(deadline, "wait")
            except IPCError as error:
                if error.code == "Timeout":
                    return None
                raise
        return self._events.popleft()

    def close(self) -> None:
        """Ends the subscription; events that came before are still there to read."""
        if not self.ended:
            self.ended = True
            self._client._end(self._stream_id)

    def take(self, kind: int, flags: int, payload: bytes) -> None:
        """Keeps one frame of the stream (called by the client)."""
        if kind == _ERROR:
            self._error = _refusal(json.loads(payload or b"{}"))
        elif payload:
            if len(self._events) >= EVENTS_KEPT:
                self._events.popleft()
                self.dropped += 1
            self._events.append(json.loads(payload))
        if flags & _TERMINATE:
            self.ended = True
            self._client._subscriptions.pop(self._stream_id, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            event = self.next_event()
            if event is None:
                return
            yield event

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise IPCError("ConnectionError", f"cannot connect: {name} is not set; the nucleus sets it for its components")
    return value


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = -1
    try:
        address = path
        if len(os.fsencode(path)) > _PATH_LIMIT:  # name the folder by a descriptor
            parent, slash, name = path.rpartition("/")
            folder = os.open(parent + slash or ".", os.O_RDONLY | os.O_DIRECTORY)
            address = f"/proc/self/fd/{folder}/{name}"
        connection.connect(address)
    except OSError as error:
        connection.close()
        what = f"cannot connect to {path}: {error.strerror}; is the nucleus running?"
        raise IPCError("ConnectionError", what) from None
    finally:
        if folder >= 0:
            os.close(folder)
    connection.setblocking(False)
    return connection


def _message(message: Any) -> dict[str, Any]:
    if isinstance(message, (bytes, bytearray)):
        return {"binaryMessage": {"message": binascii.b2a_base64(message, newline=False).decode()}}
    return {"jsonMessage": {"message": message}}


def _refusal(body: dict[str, Any]) -> IPCError:
    return IPCError(body.get("_errorCode", "ServiceError"), body.get("message") or body.get("_message", ""), body)


def _string(name: str, value: str) -> bytes:
    data = value.encode()
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(data)) + data


def _numbers(kind: int, flags: int, stream_id: int) -> bytes:
    named = ((b":message-type", kind), (b":message-flags", flags), (b":stream-id", stream_id))
    return b"".join(bytes([len(name)]) + name + struct.pack(">Bi", 4, value) for name, value in named)


def _frame(headers: bytes, payload: bytes) -> bytes:
    """Total u32, headers u32, crc u32, headers, payload, crc u32 (big-endian)."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def _headers(block: bytes) -> dict[str, Any]:
    """The integer and text headers by name; others are skipped."""
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    found: dict[str, Any] = {}
    at = 0
    while at < len(block):
        end = at + 1 + block[at]
        name, kind = block[at + 1 : end].decode().lower(), block[end]
        at = end + 1
        if kind in (6, 7):
            size = struct.unpack_from(">H", block, at)[0]
            at += 2
        else:
            size = sizes[kind]
        value = block[at : at + size]
        found[name] = value.decode() if kind == 7 else int.from_bytes(value, "big", signed=True)
        at += size
    return found
