"""HTTP/1.1 for a door on one machine: bounded, with deadlines, kept alive (standard library only).

One thread for each connection, CONNECTIONS_LIMIT at most; one too many hears 503. A request has REQUEST_S from its first
byte to its last, a silent connection IDLE_S. Heads end at the standard library's bounds, bodies at BODY_LIMIT_BYTES, and
only with a Content-Length: chunked ones are refused (411). `gzip` and `deflate` bodies are unpacked up to the same bound.
All bodies together have at most HELD_LIMIT_BYTES; what comes on top hears 503. The door listens on a loopback address or
a Unix socket, and over TCP answers only to the names of loopback, so that no web page can reach it through a name of its
own.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import socket
import socketserver
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import agent_oip_address

CONNECTIONS_LIMIT = 64
BODY_LIMIT_BYTES = 24 * 1024 * 1024  # 16 MiB of model in base64 and room
HELD_LIMIT_BYTES = 4 * BODY_LIMIT_BYTES
IDLE_S, REQUEST_S = 600.0, 10.0
_PIECE_BYTES = 1024 * 1024


class HttpError(Exception):
    """A request that gets no answer of the service: its status and a message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """One request, whole."""

    method: str
    path: str
    headers: Any  # .get(name) without regard to case
    body: memoryview


@dataclass(frozen=True)
class Reply:
    """One answer; `parts` are its body, one after the other."""

    status: HTTPStatus
    parts: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Asked], Reply]  # raises HttpError


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens from the start; `serve_forever` answers. `where` is the address as a client names it."""

    daemon_threads = True
    allow_reuse_address = True
    allow_reuse_port = True  # while one agent takes over from another: agent_oip_address.free
    request_queue_size = CONNECTIONS_LIMIT

    def __init__(
        self, address: str, answer: Answer, refusal: Callable[[HTTPStatus, str], Reply], request_s: float = REQUEST_S
    ) -> None:
        self.answer, self.refusal, self.request_s = answer, refusal, request_s
        self.is_unix = address.startswith("unix:")
        self._places = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        self._held_bytes, self._answering, self._holding = 0, 0, threading.Condition()
        self._inode = 0  # of a Unix socket
        bound: Any = address.removeprefix("unix:") if self.is_unix else agent_oip_address.loopback(address)
        self.address_family = socket.AF_UNIX if self.is_unix else agent_oip_address.family(bound[0])
        super().__init__(bound, _Conversation)
        name = self.socket.getsockname()
        self.where = address if self.is_unix else f"{name[0]}:{name[1]}"

    def server_bind(self) -> None:
        """For a Unix socket: in the place of one left by a predecessor, for this user only."""
        if not self.is_unix:
            super().server_bind()
            return

        def bind(path: str) -> None:
            self.socket.bind(path)
            self.socket.listen(self.request_queue_size)  # before it is there for clients: they would be refused

        self._inode = agent_oip_address.place(str(self.server_address), bind)

    @contextlib.contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Room for a body in memory until its answer is sent; raises HttpError if others have it."""
        with self._holding:
            if self._held_bytes + size_bytes > HELD_LIMIT_BYTES:
                raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at a time; try again")
            self._held_bytes += size_bytes
            self._answering += 1
        try:
            yield
        finally:
            with self._holding:
                self._held_bytes -= size_bytes
                self._answering -= 1
                self._holding.notify_all()

    def finish(self, grace_s: float) -> None:
        """Takes no more connections and waits for the answers under way, `grace_s` at most."""
        self.shutdown()
        self.socket.setblocking(False)
        with contextlib.suppress(OSError):
            while True:  # who has connected already is answered, too
                self.process_request(*self.get_request())
        self.server_close()
        if self._inode:
            agent_oip_address.leave(str(self.server_address), self._inode)
        with self._holding:
            self._holding.wait_for(lambda: not self._answering, grace_s)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, or a refusal when all places are taken."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.settimeout(0.1)
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole life of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the other side's business."""


class _Timed(io.RawIOBase):
    """Reads a socket until `deadline` (time.monotonic()), however slowly bytes trickle in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request did not arrive in time")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Conversation(http.server.BaseHTTPRequestHandler):
    """The requests of one connection, in order."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        self.connection = self.request
        self._timed = _Timed(self.connection)
        self._buffered = io.BufferedReader(self._timed, 64 * 1024)
        self.rfile = self._buffered
        self.wfile = io.BytesIO()  # what the standard library says by itself
        if not self.server.is_unix:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_one_request(self) -> None:
        """Waits for a request, reads it whole and answers it; the connection ends where its bounds are not kept."""
        self.close_connection = True
        self._timed.deadline = time.monotonic() + IDLE_S
        with contextlib.suppress(OSError):
            if not self._buffered.peek(1):
                return
            self._timed.deadline = time.monotonic() + self.server.request_s
            self.raw_requestline = self.rfile.readline(65537)
            if len(self.raw_requestline) > 65536 or not self.parse_request():
                self._send(
                    self.server.refusal(HTTPStatus.BAD_REQUEST, "no HTTP request that this door reads"), last=True
                )
                return
            self._answer()

    def _answer(self) -> None:
        kept = not self.close_connection
        self.close_connection = True
        try:
            size = self._size()
            with self.server.hold(size if self._encoding() == "identity" else BODY_LIMIT_BYTES):
                asked = Asked(self.command, self.path, self.headers, self._body(size))
                self._send(self._reply(asked), last=not kept)
        except HttpError as error:
            # The body was not read: where the next request would begin is unknown.
            self._send(self.server.refusal(error.status, str(error)), last=True)
            return
        self.close_connection = not kept

    def _reply(self, asked: Asked) -> Reply:
        try:
            return self.server.answer(asked)
        except HttpError as error:
            return self.server.refusal(error.status, str(error))

    def _size(self) -> int:
        """The length of the body, once everything that can be judged without it is in order."""
        if not self.server.is_unix and not agent_oip_address.is_ours(self.headers.get("Host", "")):
            raise HttpError(HTTPStatus.FORBIDDEN, "this door answers to localhost only")
        if self.headers.get("Transfer-Encoding"):
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "send the body with a Content-Length, not in chunks")
        if self._encoding() not in ("identity", "gzip", "deflate"):
            raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"unknown Content-Encoding {self._encoding()[:30]!r}")
        return self._length()

    def _encoding(self) -> str:
        return str(self.headers.get("Content-Encoding", "identity")).lower()

    def _body(self, size: int) -> memoryview:
        if size and self.headers.get("Expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray(size)
        view, done = memoryview(body), 0
        while done < size:
            count = self.rfile.readinto(view[done : done + _PIECE_BYTES])
            if not count:
                raise ConnectionError("the connection ended in the middle of a body")
            done += count
        return view if self._encoding() == "identity" else _unpacked(view)

    def _length(self) -> int:
        given = self.headers.get_all("Content-Length") or ["0"]
        if len(set(given)) != 1 or not given[0].isascii() or not given[0].isdigit() or len(given[0]) > 12:
            raise HttpError(HTTPStatus.BAD_REQUEST, "bad Content-Length")
        if int(given[0]) > BODY_LIMIT_BYTES:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {BODY_LIMIT_BYTES} bytes")
        return int(given[0])

    def handle_expect_100(self) -> bool:
        """Only once the length is known to be in bounds: see _body."""
        return True

    def _send(self, reply: Reply, *, last: bool) -> None:
        headers = {
            "Content-Type": "application/json",
            **reply.headers,
            "Content-Length": str(sum(map(len, reply.parts))),
        }
        if last:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        self.connection.settimeout(REQUEST_S)
        self.connection.sendall(b"".join([("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), *reply.parts]))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The refusal of what the standard library could not parse is said by handle_one_request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Requests are counted (statistics), not logged."""


def _unpacked(body: memoryview) -> memoryview:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or deflate, by its first bytes
    try:
        unpacked = unpacker.decompress(body, BODY_LIMIT_BYTES)
    except zlib.error as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {BODY_LIMIT_BYTES} bytes, and must be whole"
        )
    return memoryview(unpacked)
