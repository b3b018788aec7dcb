"""HTTPS to the cloud with the device certificate (awscrt.http): one TLS stack for the whole daemon.

Connections are kept and reused, one request at a time each; an idle one that the server closed is replaced once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from nucleus.core import errors
from nucleus.uplink import crt

BODY_LIMIT = 4 * 1024 * 1024  # bytes of an answer that is kept in memory
WINDOW = 256 * 1024  # bytes the server may be ahead of the disk


class Response(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


Start = Callable[[int, dict[str, str]], Callable[[bytes], None]]


class Http:
    """Requests to any host; the same certificate and trust store for all of them.

    Raises NucleusError TLS_HANDSHAKE_FAILURE if a file is not what it should be.
    """

    def __init__(self, *, certificate: Path, private_key: Path, root_ca: Path) -> None:
        try:
            options = crt.io.TlsContextOptions.create_client_with_mtls_from_path(str(certificate), str(private_key))
            options.override_default_trust_store_from_path(None, str(root_ca))
            self._context = crt.io.ClientTlsContext(options)
        except Exception as error:  # RuntimeError, AwsCrtError
            raise errors.NucleusError(
                "TLS_HANDSHAKE_FAILURE",
                f"cannot use {certificate}, {private_key} and {root_ca}: {error}; `marram device create` makes new ones",
            ) from error
        self._idle: dict[tuple[str, str, int], list[Any]] = {}
        self._opening: dict[tuple[str, str, int], list[asyncio.Future[Any]]] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """One request with its answer in memory, at most BODY_LIMIT bytes.

        Raises NucleusError NETWORK_ERROR when there is no answer; any status is an answer.
        """
        parts: list[bytes] = []
        seen: list[tuple[int, dict[str, str]]] = []

        def start(status: int, fields: dict[str, str]) -> Callable[[bytes], None]:
            seen.append((status, fields))
            return keep

        def keep(chunk: bytes) -> None:
            parts.append(chunk)
            if sum(map(len, parts)) > BODY_LIMIT:
                raise ValueError(f"the answer is larger than {BODY_LIMIT} bytes")

        await self.stream(method, url, start, body=body, headers=headers, timeout_s=timeout_s)
        status, fields = seen[-1]
        return Response(status, fields, b"".join(parts))

    async def stream(
        self,
        method: str,
        url: str,
        start: Start,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """One request; `start(status, headers)` returns the function that takes the body's chunks.

        Both are called on the CRT's thread. `timeout_s` bounds the wait for progress, not the whole transfer. An answer
        that breaks off is never repeated here: its beginning has been handed on.
        """
        answered = False

        def begin(status: int, fields: dict[str, str]) -> Callable[[bytes], None]:
            nonlocal answered
            answered = True
            return start(status, fields)

        parts, key = urlsplit(url), _key(url)
        request = crt.http.HttpRequest(method, parts.path + (f"?{parts.query}" if parts.query else "") or "/")
        request.headers.add("Host", parts.netloc)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.headers.add(name, value)
        reused = bool(self._idle.get(key))
        try:
            await self._exchange(key, request, body, begin, timeout_s)
        except errors.NucleusError:
            if not reused or answered:
                raise
            for stale in self._idle.pop(key, ()):  # they may have died while we were offline: once more, fresh
                stale.close()
            await self._exchange(key, request, body, begin, timeout_s)

    async def warm(self, url: str, count: int = 2) -> None:
        """Opens connections ahead of calls that will follow: over a slow link their handshakes cost as much as the calls.

        Waits until they are open, at most 10 s. That one cannot be opened is found out by the call that needs it.
        """
        key = _key(url)
        idle = [one for one in self._idle.get(key, []) if one.is_open()]
        opening = [self._open(key) for _ in range(count - len(idle) - len(self._opening.get(key, [])))]
        if not opening:
            return
        self._opening.setdefault(key, []).extend(opening)
        await asyncio.wait(opening, timeout=10.0)
        for one in opening:
            if one in self._opening[key]:  # no call has taken it
                self._opening[key].remove(one)
                if one.done() and not one.cancelled() and one.exception() is None:
                    self._idle.setdefault(key, []).append(one.result())

    async def _exchange(
        self, key: tuple[str, str, int], request: Any, body: bytes, start: Start, timeout_s: float
    ) -> None:
        if body:  # the setter refuses None
            request.body_stream = crt.io.InputStream(BytesIO(body))
        url = f"{key[0]}://{key[1]}:{key[2]}{request.path}"
        progress = _Progress(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connection(key)
            await progress.perform(connection, request, start, timeout_s)
        except TimeoutError:
            raise errors.NucleusError("NETWORK_ERROR", f"cannot get {url}: no answer within {timeout_s:g} s") from None
        except Exception as error:  # AwsCrtError and whatever a chunk sink raised
            if isinstance(error, errors.NucleusError):
                raise
            raise errors.NucleusError("NETWORK_ERROR", f"cannot get {url}: {error}") from error
        self._idle.setdefault(key, []).append(connection)

    async def _connection(self, key: tuple[str, str, int]) -> Any:
        idle = self._idle.get(key, [])
        while idle:
            connection = idle.pop()
            if connection.is_open():
                return connection
        opening = self._opening.get(key)
        if opening:
            try:
                return await opening.pop(0)
            except Exception:  # noqa: S110  AwsCrtError: the fresh try below says why
                pass
        return await self._open(key)

    def _open(self, key: tuple[str, str, int]) -> asyncio.Future[Any]:
        scheme, host, port = key
        tls = None
        if scheme == "https":
            tls = self._context.new_connection_options()
            tls.set_server_name(host)
        return asyncio.wrap_future(
            crt.http.HttpClientConnection.new(
                host, port, tls_connection_options=tls, manual_window_management=True, initial_window_size=WINDOW
            )
        )

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()


def _key(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _Progress:
    """One exchange: hands chunks to the sink on the CRT's thread, gives up when nothing moved for `timeout_s`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._moved = 0
        self._failure: Exception | None = None

    async def perform(self, connection: Any, request: Any, start: Start, timeout_s: float) -> None:
        sinks: list[Callable[[bytes], None]] = []

        def on_response(http_stream: Any, status_code: int, headers: Any, **_: Any) -> None:
            self._moved += 1
            sinks.append(self._guard(start, status_code, {name.lower(): value for name, value in headers}))

        def on_body(http_stream: Any, chunk: Any, **_: Any) -> None:
            self._moved += 1
            self._guard(sinks[-1], bytes(chunk))
            http_stream.update_window(len(chunk))

        stream = connection.request(request, on_response, on_body)
        stream.activate()
        done = asyncio.wrap_future(stream.completion_future)
        try:
            while not done.done():
                before = self._moved
                await asyncio.wait([done], timeout=timeout_s)
                if not done.done() and self._moved == before:
                    raise TimeoutError
            await done
        except Exception:
            connection.close()
            raise self._failure or errors.NucleusError("NETWORK_ERROR", _why(done)) from None

    def _guard(self, sink: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return sink(*arguments)
        except Exception as error:
            self._failure = error  # awscrt replaces it by a general one
            raise


def _why(done: asyncio.Future[Any]) -> str:
    if done.done() and not done.cancelled() and done.exception() is not None:
        return f"cannot complete the request: {done.exception()}"
    return "cannot complete the request: no progress"
