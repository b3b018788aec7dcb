"""The token exchange: an HTTP endpoint on loopback that gives components temporary cloud credentials (spec/nucleus.md 10).

A component shows its own token; the answer is the container format of the AWS SDKs, cached as `core.credentials` says.
A change of the port opens the new one; those opened before serve on until the nucleus stops, because components that run
keep the address they were started with.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nucleus.core import builtin, configuration, credentials, errors
from nucleus.host import logs
from nucleus.store import configuration as configuration_store

PATH = "/2016-11-01/credentialprovider/"
URI_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
SETTINGS = ("services", builtin.TOKEN_EXCHANGE, "configuration")
UPSTREAM_S = 30.0
_HEAD_S = 5.0  # for the request's head
_HEAD_BYTES = 8192
_CONNECTIONS = 64
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}

Fetch = Callable[[], Awaitable[tuple[int, bytes]]]


class TokenExchange:
    """`environment` is shared with the supervisor: components started after a change of the port get the new address.

    `fetch` asks the cloud and returns status and body; it raises NucleusError when there is no answer.
    """

    def __init__(
        self,
        fetch: Fetch,
        identify: Callable[[str], str | None],
        store: configuration_store.ConfigurationStore,
        environment: dict[str, str],
        log: logs.Log,
        *,
        upstream_s: float = UPSTREAM_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._identify = identify
        self._store = store
        self._environment = environment
        self._log = log
        self._upstream_s = upstream_s
        self._clock = clock
        self._servers: dict[int, asyncio.Server] = {}
        self._carried: dict[int, int] = {}
        self._wanted = -1
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._asking: asyncio.Task[credentials.Answer] | None = None
        self._answer: credentials.Answer | None = None
        self._asked_ms = 0  # when, by this device's clock
        self._open = 0

    async def start(self, carried: Mapping[int, int] | None = None) -> None:
        """Opens the port and tells the environment: to be awaited before components start.

        `carried` are the listening sockets of the process image before this one (port: descriptor).
        """
        self._store.watch(SETTINGS, lambda _changes: self._changed.set())
        self._carried = dict(carried or {})
        await self._listen()
        for port in list(self._carried):
            await self._bind(port)

    def carry(self) -> dict[int, int]:
        """The listening sockets for the next process image."""
        return {port: server.sockets[0].fileno() for port, server in self._servers.items()}

    async def run(self) -> None:
        """Serves until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._listen()
        finally:
            for server in self._servers.values():
                server.close()

    def forget_failure(self) -> None:
        """The connection came back: a failure that is remembered says nothing any more."""
        if self._answer is not None and not self._answer.expires_ms:
            self._answer = None

    # ---- the port ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        wanted = _port(self._settings().get("port"))
        if wanted == self._wanted:
            return
        try:
            port = await self._bind(wanted)
        except OSError as error:
            self._log.error("token_exchange.no_port", port=wanted, why=str(error))
            if self._servers:
                return
            port = await self._bind(0)
        self._wanted = wanted
        self._environment[URI_VARIABLE] = f"http://127.0.0.1:{port}{PATH}"
        self._log.info("token_exchange.listening", port=port)
        if self._settings().get("activePort") != port:
            path, stamp = (*SETTINGS, "activePort"), self._store.now()
            _, changes = configuration.merge(self._store.tree, path, port, stamp, "nucleus")
            self._store.commit(changes)

    async def _bind(self, port: int) -> int:
        known = self._settings().get("activePort")
        if not port and known in self._carried:
            port = int(known)
        if port in self._servers:
            return port
        loop = asyncio.get_running_loop()
        if port in self._carried:
            given = socket.socket(fileno=self._carried.pop(port))
            server = await loop.create_server(lambda: _Request(self), sock=given)
        else:
            server = await loop.create_server(lambda: _Request(self), "127.0.0.1", port)
        port = int(server.sockets[0].getsockname()[1])
        self._servers[port] = server
        return port

    def _settings(self) -> dict[str, Any]:
        try:
            found = configuration.get(self._store.tree, SETTINGS)
        except KeyError:
            return {}
        return found if isinstance(found, dict) else {}

    # ---- one request ---------------------------------------------------------------------------------------------

    def admit(self, request: _Request) -> bool:
        if self._group is None or self._open >= _CONNECTIONS:
            return False
        self._open += 1
        return True

    def left(self) -> None:
        self._open -= 1

    def take(self, request: _Request, method: str, target: str, token: str) -> None:
        """Answers at once, or starts a task that does when the cloud has answered."""
        assert self._group is not None  # admit said so
        if target != PATH:
            request.answer(400, _text(f"only {PATH} is here"))
        elif method != "GET":
            request.answer(405, _text("only GET is possible"), "Allow: GET\r\n")
        elif (name := self._identify(token)) is None:
            request.answer(403, _text("no component has this authorization token"))
        else:
            self._group.create_task(self._serve(request, name))

    async def _serve(self, request: _Request, name: str) -> None:
        try:
            found = await self.current()
        except TimeoutError:
            self._log.warning("token_exchange.no_answer", component=name, seconds=self._upstream_s)
            request.answer(504, _text(f"the cloud did not answer within {self._upstream_s:g} s"))
            return
        request.answer(found.status, found.body)

    async def current(self) -> credentials.Answer:
        """The cached answer or a new one; all who wait share one question. Raises TimeoutError. Only while it runs."""
        held, now_ms = self._answer, int(self._clock() * 1000)
        if held is not None and self._asked_ms <= now_ms < held.fresh_until_ms:  # a clock set back makes nothing last
            return held
        assert self._group is not None
        if self._asking is None or self._asking.done():
            self._asking = self._group.create_task(self._ask())
        async with asyncio.timeout(self._upstream_s):
            return await asyncio.shield(self._asking)

    async def _ask(self) -> credentials.Answer:
        try:
            async with asyncio.timeout(self._upstream_s * 2):
                status, body = await self._fetch()
        except TimeoutError:
            status, body = 0, b"the cloud did not answer"
        except errors.NucleusError as error:
            status, body = 0, error.detail.encode()
        held, now_ms = self._answer, int(self._clock() * 1000)
        self._asked_ms = now_ms
        found = credentials.judge(status, body, now_ms, credentials.retry(self._settings()))
        if found.status != 200:
            self._log.warning("token_exchange.failed", status=status, why=body.decode(errors="replace")[:300])
            if held is not None and held.expires_ms > now_ms:  # in their last minutes, but good
                return held
        self._answer = found
        return found


class _Request(asyncio.BufferedProtocol):
    """One connection with one request; closed after its answer."""

    def __init__(self, owner: TokenExchange) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_HEAD_BYTES)
        self._filled = 0
        self._admitted = self._taken = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._admitted = self._owner.admit(self)
        if not self._admitted:
            transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(_HEAD_S, transport.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled if not self._taken else 0 :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._taken or self._transport is None:
            return
        self._filled += nbytes
        head, end, _ = bytes(self._buffer[: self._filled]).partition(b"\r\n\r\n")
        if not end:
            if self._filled == _HEAD_BYTES:
                self._transport.abort()
            return
        self._taken = True
        if self._deadline is not None:
            self._deadline.cancel()
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self._owner.take(self, method, rest.partition(" ")[0], fields.get("authorization", ""))

    def answer(self, status: int, body: bytes, more: str = "") -> None:
        if self._transport is None:
            return
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: application/json\r\n{more}"
        self._transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        if self._admitted:
            self._owner.left()


def _port(given: Any) -> int:
    """A configured port, 0 for a free one."""
    try:
        port = int(given or 0)
    except (TypeError, ValueError):
        return 0
    return port if 0 < port < 65_536 else 0


def _text(why: str) -> bytes:
    return json.dumps({"message": f"cannot give credentials: {why}"}).encode()
