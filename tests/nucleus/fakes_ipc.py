"""Small working implementations of nucleus/ipc/ports.py around a real server, store and broker, in a thread or a task."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from nucleus.actors import broker, consent, validation
from nucleus.core import configuration
from nucleus.ipc import connection, ports, server
from nucleus.store import configuration as store
from nucleus.testkit import standins
from nucleus.testkit.standins import Health, Incoming, State

__all__ = ["Health", "Incoming", "State"]

PUBSUB = "aws.greengrass.ipc.pubsub"
MQTT = "aws.greengrass.ipc.mqttproxy"
CLI = "aws.greengrass.Cli"
LIFECYCLE = "aws.greengrass.ipc.lifecycle"
EVERYTHING = {service: {"p": {"operations": ["*"], "resources": ["*"]}} for service in (PUBSUB, MQTT, CLI, LIFECYCLE)}


class World:
    """A running server with its fakes. Tokens are `token-<component>`."""

    def __init__(self, path: Path, limits: connection.Limits, **services: Any) -> None:
        """`services` are further ports, e.g. `secrets`."""
        self.path = path
        self.log = standins.Log()
        self.moment_s = 10.0
        self.configuration = store.ConfigurationStore(path.parent / "config", clock=lambda: self.moment_s)
        self.components = standins.Components()
        self.deployments = standins.Deployments()
        self.uplink = standins.Uplink()
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
            **services,
        )
        self.metrics = known.metrics
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
