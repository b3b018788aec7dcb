"""Small working stand-ins for the parts of the daemon behind the IPC server (ipc/ports.py), without processes or a cloud.

They remember what components asked of them. Our own tests of the server use them, too.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core import component, errors, local, topics
from nucleus.host import confine
from nucleus.ipc import ports


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
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def connected(self) -> bool:
        return not self.offline

    def on_status(self, callback: Callable[[bool], None], /) -> Callable[[], None]:
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def connect(self, up: bool) -> None:
        """The connection comes or goes; whoever listens is told."""
        self.offline = not up
        for callback in list(self._listeners):
            callback(up)

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
            raise errors.Refused("cannot subscribe to forbidden: the broker answered 0x87", 0x87, "not authorized")
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
