"""Composition root of the service: builds every part, runs them in one TaskGroup, ends them together.

`endpoints.json` and `cloud.pid` in the root folder say that all of them listen; they are removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from cloud import log as cloud_log
from cloud import operator_server
from cloud import settings as cloud_settings
from cloud.api import app as api_app
from cloud.api import device_server
from cloud.api import services as api_services
from cloud.mqtt import bell, child, port, principals, provisioning, sender, services
from cloud.objects import files
from cloud.store import database, founding, objects_index, pki

Settings = cloud_settings.Settings

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _StoppedError(Exception):
    """A signal asked for the end."""


class _Bells(msgspec.Struct, frozen=True):
    """Who wants to know of a commit."""

    outbox: bell.Bell
    principals: bell.Bell

    def ring(self) -> None:
        self.outbox.ring()
        self.principals.ring()


def run(root: Path, settings: Settings, log: structlog.stdlib.BoundLogger | None = None) -> int:
    """Serves until SIGTERM or SIGINT, then returns 0.

    Raises NucleusError if no service was founded in `root`, BlockingIOError if one runs there, OSError for a taken port.
    """
    try:
        asyncio.run(serve(root.resolve(), settings, log or cloud_log.configure()))
    except ExceptionGroup as group:
        raise _only_cause(group) from group
    return 0


async def serve(root: Path, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
    """`run` inside a running loop; ends also when it is cancelled."""
    founded = founding.read(root)
    with contextlib.ExitStack() as held:
        held.enter_context(_alone(root))
        authority = pki.Authority.open(root)
        authority.issue_server(settings.served_names())
        store = held.enter_context(contextlib.closing(database.Database(f"sqlite:///{root / 'cloud.db'}")))
        store.create()
        objects = files.Objects(root / "objects")
        objects.clean()
        with store.read() as tx:
            objects.sweep(objects_index.referenced(tx))
        bells = _Bells(bell.Bell(), bell.Bell())
        shared = api_services.Services(
            database=store,
            account=founded.account,
            region=founded.region,
            objects=objects,
            endpoints=api_services.Endpoints(),
            notify=bells.ring,
            pki=authority,
            clock=_now_ms,
        )
        async with child.broker(root, host=settings.host, port=settings.mqtt_port, log=log) as (broker, mqtt_port):
            shared.endpoints.mqtt_host, shared.endpoints.mqtt_port = settings.advertised(), mqtt_port
            await _serve(root, settings, shared, broker, bells, log)
    log.info("cloud.stopped")


async def _serve(
    root: Path,
    settings: Settings,
    shared: api_services.Services,
    broker: port.BrokerPort,
    bells: _Bells,
    log: structlog.stdlib.BoundLogger,
) -> None:
    tls = None if settings.is_local() else (root / "server.pem", root / "server.key")
    operator = operator_server.OperatorServer(api_app.build(shared), settings.host, settings.api_port, tls)
    device = device_server.DeviceServer(shared, shared.pki.device_context(), settings.host, settings.device_port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_stop_on_signal())
            group.create_task(principals.Pusher(shared.database, broker, bells.principals, log).run())
            group.create_task(sender.Sender(shared.database, broker, bells.outbox, log).run())
            provisioner = provisioning.Provisioner(shared.pki, shared.arn("iot", ""), bells.principals.ring)
            group.create_task(
                services.Services(shared.database, broker, _now_ms, bells.outbox.ring, log, provisioner).run()
            )
            await operator.start()
            group.create_task(operator.run())
            await device.start()
            group.create_task(device.run())
            _fill(shared.endpoints, settings, operator.port, device.port)
            with _announced(root, shared):
                log.info("cloud.started", root=str(root), **msgspec.to_builtins(shared.endpoints))
                await asyncio.Event().wait()  # until a task fails or a signal comes
    except* _StoppedError:
        log.info("cloud.stopping")


async def _stop_on_signal() -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, asked.set)
    try:
        await asked.wait()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    raise _StoppedError


def _fill(endpoints: api_services.Endpoints, settings: Settings, api_port: int, device_port: int) -> None:
    scheme, host = ("http", settings.host) if settings.is_local() else ("https", settings.advertised())
    endpoints.api = f"{scheme}://{host}:{api_port}"
    endpoints.device = f"https://{settings.advertised()}:{device_port}"


def _only_cause(group: ExceptionGroup[Exception]) -> Exception:
    """The one error inside: a taken port should read as such, not as a tree."""
    cause: Exception = group
    while isinstance(cause, ExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    return cause


@contextlib.contextmanager
def _announced(root: Path, shared: api_services.Services) -> Iterator[None]:
    """`endpoints.json` and `cloud.pid` for as long as the block runs."""
    endpoints = {
        "api": shared.endpoints.api,
        "device": shared.endpoints.device,
        "mqtt": {"host": shared.endpoints.mqtt_host, "port": shared.endpoints.mqtt_port},
        "account": shared.account,
        "region": shared.region,
        "ca": str(root / "ca.pem"),
    }
    paths = {root / "cloud.pid": f"{os.getpid()}\n".encode(), root / "endpoints.json": msgspec.json.encode(endpoints)}
    try:
        for path, data in paths.items():
            new = path.with_name(path.name + ".new")
            new.write_bytes(data)
            new.rename(path)
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keeps a second service out of the folder; what a killed one left there is removed."""
    with (root / "cloud.json").open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            why = f"cannot start the service in {root}: it is running already"
            raise BlockingIOError(error.errno, why) from error
        for name in ("endpoints.json", "cloud.pid"):
            (root / name).unlink(missing_ok=True)
        yield


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
