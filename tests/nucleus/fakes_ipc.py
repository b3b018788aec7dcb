"""Small working implementations of nucleus/ipc/ports.py around a real server, store and broker, in a thread or a task."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.actors import broker, consent, validation
from nucleus.core import component, configuration, errors, local, topics
from nucleus.host import confine
from nucleus.ipc import connection, ports, server
from nucleus.store import configuration as store

PUBSUB = "aws.greengrass.ipc.pubsub"
MQTT = "aws.greengrass.ipc.mqttproxy"
CLI = "aws.greengrass.Cli"
LIFECYCLE = "aws.greengrass.ipc.lifecycle"
EVERYTHING = {service: {"p": {"operations": ["*"], "resources": ["*"]}} for service in (PUBSUB, MQTT, CLI, LIFECYCLE)}


class State(Enum):
    RUNNING = 1
    BROKEN = 2


class Health(Struct, frozen=True):
    version: str
    state: State


class Log:
    """Remembers what was logged; a test's thread may wait for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._news = threading.Condition()

    def _add(self, event: str, /, **fields: Any) -> None:
        with self._news:
            self.events.append((event, fields))
            self._news.notify_all()

    def wait_for(self, event: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: event in self.names(), 20), f"{event} was not logged"

    debug = info = warning = error = _add

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Components:
    """Components that are there or not; remembers reports."""

    def __init__(self) -> None:
        self.known: dict[str, Health] = {}
        self.reports: list[tuple[str, str]] = []
        self.stubborn: set[str] = set()
        self.paused: list[str] = []

    def health(self) -> Mapping[str, ports.Health]:
        return dict(self.known)

    def component(self, name: str, /) -> component.Component | None:
        return component.Component(name=name, version=self.known[name].version) if name in self.known else None

    def report(self, name: str, state: str, /) -> None:
        self.reports.append((name, state))

    def restart(self, name: str, /) -> bool:
        return name not in self.stubborn

    def stop_component(self, name: str, /) -> bool:
        return name not in self.stubborn

    async def pause(self, name: str, /) -> None:
        if name in self.stubborn:
            raise confine.Unavailable("it is FINISHED, and only a RUNNING component can be paused")
        self.paused.append(name)

    async def resume(self, name: str, /) -> None:
        if name in self.stubborn:
            raise confine.Unavailable("the kernel refuses")
        self.paused.remove(name)


class Deployments:
    """Every request is queued; a component called `missing` is refused."""

    def __init__(self) -> None:
        self.requests: list[tuple[local.LocalRequest, str]] = []
        self.known: dict[str, local.LocalStatus] = {}

    async def create_local(self, request: local.LocalRequest, caller: str, /) -> str:
        await asyncio.sleep(0)
        if "missing" in request.add:
            raise errors.NucleusError("NO_AVAILABLE_COMPONENT_VERSION", "cannot deploy missing: there is none")
        self.requests.append((request, caller))
        deployment_id = str(uuid.UUID(int=len(self.requests)))
        self.known[deployment_id] = local.LocalStatus(
            deployment_id=deployment_id, status="QUEUED", created_at=1_700_000_000.5
        )
        return deployment_id

    def cancel_local(self, deployment_id: str, /) -> bool:
        """What is queued can be cancelled, once."""
        known = self.known[deployment_id]
        self.known[deployment_id] = msgspec.structs.replace(known, status="CANCELED", detail="CANCELED")
        return known.status == "QUEUED"

    def status(self, deployment_id: str, /) -> local.LocalStatus | None:
        return self.known.get(deployment_id)

    def list(self) -> list[local.LocalStatus]:
        return list(self.known.values())


class Incoming(Struct, frozen=True):
    topic: str
    payload: bytes
    retain: bool = False
    properties: dict[str, Any] = {}


class Uplink:
    """A broker of its own; the filter `forbidden` gets a bad SUBACK, `retained` has a message waiting."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, int, dict[str, Any]]] = []
        self._filters: list[tuple[str, Callable[[ports.IncomingMessage], None]]] = []
        self.offline = False

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        if self.offline and qos == 0:
            raise errors.NucleusError("NETWORK_ERROR", f"cannot publish to {topic}: offline and QoS 0")
        self.published.append((topic, payload, qos, properties))
        self.arrive(Incoming(topic, payload, properties=properties))

    async def subscribe(
        self, filter_: str, qos: int, deliver: Callable[[ports.IncomingMessage], None], /
    ) -> Callable[[], None]:
        await asyncio.sleep(0)
        if filter_ == "forbidden":
            raise errors.NucleusError("ACCESS_DENIED", "cannot subscribe to forbidden: the broker answered 0x87")
        entry = (filter_, deliver)
        self._filters.append(entry)
        if filter_ == "retained":
            deliver(Incoming("retained", b"old", retain=True))
        return lambda: self._filters.remove(entry)

    def arrive(self, message: Incoming) -> None:
        for filter_, deliver in list(self._filters):
            if topics.matches(filter_, message.topic, mqtt=True):
                deliver(message)

    @property
    def subscriptions(self) -> int:
        return len(self._filters)


class World:
    """A running server with its fakes. Tokens are `token-<component>`."""

    def __init__(self, path: Path, limits: connection.Limits) -> None:
        self.path = path
        self.log = Log()
        self.moment_s = 10.0
        self.configuration = store.ConfigurationStore(path.parent / "config", clock=lambda: self.moment_s)
        self.components = Components()
        self.deployments = Deployments()
        self.uplink = Uplink()
        self.broker = broker.Broker()
        self.consent = consent.Consent(self.log)
        self.validation = validation.Validation(self.log)
        known = ports.Ports(
            self._identify,
            self.configuration,
            self.components,
            self.deployments,
            self.uplink,
            self.broker,
            self.consent,
            self.validation,
        )
        self.configuration.open()
        self.server = server.Server(path, known, self.log, limits=limits)
        self.loop: asyncio.AbstractEventLoop | None = None

    def _identify(self, token: str) -> str | None:
        name = token.removeprefix("token-")
        return name if name != token and (name in self.components.known or "#" in name) else None

    def add(self, name: str, *, access: Any = None, version: str = "1.0.0", **values: Any) -> str:
        """A running component with its configuration; returns its token."""
        self.components.known[name] = Health(version, State.RUNNING)
        self.put(("services", name), {"version": version, "configuration": {"accessControl": access or {}, **values}})
        return f"token-{name}"

    def put(self, path: configuration.Path, value: Any) -> None:
        """Writes as a deployment does."""
        stamp = 1000  # before every time that tests give to a write
        self.configuration.commit(
            configuration.merge(self.configuration.tree, path, value, stamp, "deployment:test")[1]
        )

    def drop(self, path: configuration.Path) -> None:
        stamp = 1000  # before every time that tests give to a write
        self.configuration.commit(configuration.remove(self.configuration.tree, path, stamp)[1])

    @property
    def watchers(self) -> int:
        return len(self.configuration._watchers)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function on the server's loop from a test's thread and returns its result."""
        assert self.loop is not None

        async def run() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[World]:
    """Runs the server as a task of the test's loop."""
    world.loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.server.run())
        async with asyncio.timeout(10):
            await world.server.listening.wait()
        try:
            yield world
        finally:
            task.cancel()
    world.configuration.close()


@contextlib.contextmanager
def serving_in_thread(world: World) -> Iterator[World]:
    """Runs the server on a loop of its own, for blocking clients."""
    ready = threading.Event()
    over: list[asyncio.Event] = []

    async def run() -> None:
        over.append(asyncio.Event())
        async with serving(world):
            ready.set()
            await over[0].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10), "the server did not start"
    try:
        yield world
    finally:
        assert world.loop is not None
        world.loop.call_soon_threadsafe(over[0].set)
        thread.join(10)
        assert not thread.is_alive()
