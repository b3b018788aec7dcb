"""HTTPS for devices: mutual TLS, h11, and the device routes of the table (design.md 4.6, row 12).

A certificate must be known and ACTIVE at each request; presigned downloads need none. Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import uuid

import h11
import structlog
from sqlalchemy import Connection

from cloud.api import calls, device_wire, errors, identity, router, services
from cloud.store import principals

LIMIT_BODY_BYTES = 256 * 1024  # a ResolveComponentCandidates with hundreds of requirers has a few KiB
LIMIT_CONNECTIONS = 2000
IDLE_S = 75.0  # between two requests; also for the handshake and the first of them
BODY_S = 30.0  # for the rest of a request once its head is there
STALL_S = 60.0  # for a peer that takes no bytes
_BACKLOG = 512
_log = structlog.stdlib.get_logger()


class DeviceServer:
    """Binds in `start`, serves in `run` until cancelled. `port` is known after `start` (0 = a free one)."""

    def __init__(self, held: services.Services, context: ssl.SSLContext, host: str, port: int) -> None:
        self._services = held
        self._context = context
        self._host = host
        self.port = port
        self._buffer = memoryview(bytearray(device_wire.READ_BYTES))
        self._wires: set[device_wire.Wire] = set()
        self._group: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError for a taken port. Connections that come before `run` wait in the backlog."""
        bound = _bind(self._host, self.port)
        self.port = bound.getsockname()[1]
        bound.listen(_BACKLOG)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._wire, sock=bound, backlog=_BACKLOG, start_serving=False)

    async def run(self) -> None:
        assert self._server is not None, "start() comes first"
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._server.start_serving()
                await asyncio.get_running_loop().create_future()  # serves until cancelled: no deadline
        finally:
            self._server.close()
            for wire in tuple(self._wires):
                wire.abort()

    def _wire(self) -> device_wire.Wire:
        return device_wire.Wire(self._context, self._buffer, self._opened, self._wires.discard)

    def _opened(self, wire: device_wire.Wire) -> None:
        if self._group is None or len(self._wires) >= LIMIT_CONNECTIONS:
            wire.abort()
            return
        self._wires.add(wire)
        self._group.create_task(self._serve(wire))

    async def _serve(self, wire: device_wire.Wire) -> None:
        try:
            await self._converse(wire)
        except (OSError, TimeoutError, h11.ProtocolError, ssl.SSLError) as error:
            _log.debug("device.dropped", fingerprint=wire.fingerprint, why=str(error))
            wire.abort()
        finally:
            wire.close()

    async def _converse(self, wire: device_wire.Wire) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    request = await _next(connection, wire)
                if not isinstance(request, h11.Request):
                    return
                async with asyncio.timeout(BODY_S):
                    body = await _body(connection, wire)
                answer = await self._answer(wire.fingerprint, request, body)
            except errors.ApiError as error:
                answer = _refusal(error, str(uuid.uuid4()), close=True)
            except h11.RemoteProtocolError as error:
                if connection.our_state is not h11.IDLE:
                    raise
                answer = _refusal(errors.validation(f"cannot read the request: {error}"), str(uuid.uuid4()), close=True)
            await _send(connection, wire, answer)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, fingerprint: str, request: h11.Request, body: bytes) -> calls.Answer:
        request_id = str(uuid.uuid4())
        try:
            return await asyncio.to_thread(self._perform, fingerprint, request, body)
        except errors.ApiError as error:
            return _refusal(error, request_id)
        except Exception:
            # The edge of the service: a device must get what it retries on, and we must hear of it.
            _log.exception("device.failed", request_id=request_id, path=request.target.decode("latin-1"))
            return _refusal(errors.ApiError(500, "InternalServerException", "internal error, see the log"), request_id)

    def _perform(self, fingerprint: str, request: h11.Request, body: bytes) -> calls.Answer:
        raw_path, _, raw_query = request.target.decode("latin-1").partition("?")
        method, query = request.method.decode(), identity.query_of(raw_query)
        found = router.find(router.Access.PRESIGNED, method, raw_path, query)
        match = found or router.find(router.Access.DEVICE, method, raw_path, query)
        if match is None:
            message = f"cannot do {method} {raw_path}: devices have no such operation here"
            raise errors.ApiError(404, "UnknownOperationException", message)
        now_ms, database = self._services.clock(), self._services.database
        with database.begin() if match.route.writes else database.read() as tx:
            call = calls.Call(
                services=self._services,
                tx=tx,
                now_ms=now_ms,
                path=match.path,
                query=query,
                headers=dict(identity.headers_of(request.headers.raw_items())),
                body=body,
                device=None if found else _device(tx, fingerprint, now_ms),
            )
            answer = router.perform(match.route, call)
        if match.route.writes:
            self._services.notify()
        return answer


def _device(tx: Connection, fingerprint: str, now_ms: int) -> principals.Principal:
    """Who calls. Raises ApiError 403 for a certificate that is not (or no longer) good."""
    if not fingerprint:
        raise errors.denied("this call needs a client certificate; devices get one with CreateKeysAndCertificate")
    device = principals.principal(tx, fingerprint)
    if device is None:
        raise errors.denied(f"certificate {fingerprint} is not registered here")
    if not device.active or device.not_after_ms < now_ms:
        raise errors.denied(f"certificate {fingerprint} is not ACTIVE, or has expired")
    return device


async def _next(connection: h11.Connection, wire: device_wire.Wire) -> h11.Event | None:
    """The next event of the request; None when a request is over and another was sent behind it."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Event):
            return event
        if event is h11.PAUSED:
            return None
        if connection.they_are_waiting_for_100_continue:
            await wire.send(_bytes(connection.send(h11.InformationalResponse(status_code=100, headers=[]))))
        connection.receive_data(await wire.receive())


async def _body(connection: h11.Connection, wire: device_wire.Wire) -> bytes:
    """Raises ApiError 413 before more than LIMIT_BODY_BYTES are held."""
    body = bytearray()
    while isinstance(event := await _next(connection, wire), h11.Data):
        body += event.data
        if len(body) > LIMIT_BODY_BYTES:
            message = f"cannot take a body of over {LIMIT_BODY_BYTES} bytes"
            raise errors.ApiError(413, "RequestEntityTooLargeException", message)
    return bytes(body)


async def _send(connection: h11.Connection, wire: device_wire.Wire, answer: calls.Answer) -> None:
    headers = dict(answer.headers)
    if isinstance(answer.body, bytes):
        headers["content-length"] = str(len(answer.body))
    head = connection.send(h11.Response(status_code=answer.status, headers=list(headers.items())))
    if isinstance(answer.body, bytes):
        data = connection.send(h11.Data(data=answer.body))
        await _push(wire, _bytes(head) + _bytes(data) + _bytes(connection.send(h11.EndOfMessage())))
        return
    await _push(wire, _bytes(head))
    try:
        while (block := await asyncio.to_thread(next, answer.body, None)) is not None:
            await _push(wire, _bytes(connection.send(h11.Data(data=block))))
    finally:
        if close := getattr(answer.body, "close", None):
            close()
    await _push(wire, _bytes(connection.send(h11.EndOfMessage())))


async def _push(wire: device_wire.Wire, data: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await wire.send(data)


def _refusal(error: errors.ApiError, request_id: str, *, close: bool = False) -> calls.Answer:
    headers, body = errors.render(error, "", request_id)
    return calls.Answer(error.status, headers | ({"connection": "close"} if close else {}), body)


def _bytes(data: bytes | None) -> bytes:
    return data or b""


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio turns Nagle off; without, each answer may wait 40 ms for the peer's ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        why = f"cannot listen for devices on {host}:{port}: {error.strerror}; choose another port, 0 for any"
        raise OSError(error.errno, why) from error
    return bound
