"""The broker as a whole: builds its parts, listens for devices (mutual TLS) and for the service (Unix socket), keeps time."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloud.core import tls
from cloud.mqtt import addresses, port
from cloud.mqtt.broker import (
    connection,
    control,
    conversation,
    journal,
    limits,
    messages,
    principals,
    retained,
    router,
    session,
)
from nucleus.wire import mqtt_packets

_TICK_S = 1.0
_EXPIRY_TICKS = 30  # certificates expire to the half minute; everything else about them comes with a snapshot


class Settings(msgspec.Struct, frozen=True):
    """`root` holds `server.pem`, `server.key`, `ca.pem`, and gets `broker.db` and `broker.sock`. Port 0: a free one."""

    root: Path
    host: str
    port: int
    synchronous: str = "FULL"  # of SQLite: NORMAL survives SIGKILL but not a power cut
    totals: limits.Totals = limits.Totals()


class Broker:
    """`run` serves until `stop`."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._report = report
        self._stop = asyncio.Event()
        self._connections: set[connection.Connection] = set()
        self._ticks = 0

    def stop(self) -> None:
        self._stop.set()

    async def run(self, listening: Callable[[int], None]) -> None:
        """Calls `listening` with the port as soon as clients can connect."""
        settings = self._settings
        to = journal.Journal(settings.root / "broker.db", self._report)
        around = session.Surroundings(to, settings.totals, session.Counters())
        self._tell_time(around)
        desk = self._build(around, *to.open(synchronous=settings.synchronous))
        async with asyncio.TaskGroup() as group:
            group.create_task(to.run())
            try:
                await self._serve(desk, listening)
            finally:
                to.stop()

    def _build(
        self, around: session.Surroundings, stored: list[journal.StoredSession], kept: list[messages.Message]
    ) -> conversation.Desk:
        shelf = retained.Retained(around.journal, around.totals)
        shelf.restore(kept)
        routes = router.Router(around, shelf)
        routes.restore(stored)
        known = principals.Principals(self._report)
        orders = control.Control(routes, known, self._report)
        return conversation.Desk(routes, known, orders, self._report)

    async def _serve(self, desk: conversation.Desk, listening: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()
        settings = self._settings
        outside = connection.Floor(desk, settings.totals, self._context(), self._connections)
        inside = connection.Floor(desk, settings.totals, None, self._connections)
        with addresses.short(settings.root / port.SOCKET_NAME) as path:
            Path(path).unlink(missing_ok=True)
            own = await loop.create_unix_server(lambda: connection.Connection(inside), path, backlog=16)
            Path(path).chmod(0o600)
        server = await loop.create_server(
            lambda: connection.Connection(outside), settings.host, settings.port, backlog=1024
        )
        gc.collect()
        gc.freeze()  # what lives as long as the broker is not walked again and again
        gc.set_threshold(50_000, 20, 50)
        listening(server.sockets[0].getsockname()[1])
        try:
            await self._keep_time(desk)
        finally:
            own.close()
            server.close()
            for each in list(self._connections):
                if each.link is not None:
                    each.link.will = None
                    desk.router.disconnect(
                        each.link, mqtt_packets.Reason.SERVER_SHUTTING_DOWN, "SERVER_INITIATED_DISCONNECT"
                    )
            await asyncio.sleep(0)

    async def _keep_time(self, desk: conversation.Desk) -> None:
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._stop.wait()
            except TimeoutError:
                self._tick(desk)

    def _tick(self, desk: conversation.Desk) -> None:
        around = desk.router.around
        self._tell_time(around)
        for each in list(self._connections):
            each.check(around.clock)
        desk.router.sweep()
        desk.router.retained.sweep(around.now_ms)
        self._ticks += 1
        if self._ticks % _EXPIRY_TICKS == 0:
            desk.control.expel()

    def _tell_time(self, around: session.Surroundings) -> None:
        around.now_ms = time.time_ns() // 1_000_000
        around.clock = asyncio.get_running_loop().time()

    def _context(self) -> ssl.SSLContext:
        root = self._settings.root
        context = tls.server_context(("x-amzn-mqtt-ca", "mqtt"))
        context.load_cert_chain(root / "server.pem", root / "server.key")
        context.load_verify_locations(root / "ca.pem")
        return context
