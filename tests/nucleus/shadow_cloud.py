"""A cloud in memory that answers as the shadow service does, and misbehaves when told to; a device that synchronises."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from nucleus.actors import broker, shadow_file, shadow_sync, shadows
from nucleus.core import errors, shadow, shadow_settings, topics
from nucleus.ipc import shadows as messages
from nucleus.store import shadows as store
from nucleus.testkit import standins

REF = ("thing1", "one")
PREFIX = "$aws/things/thing1/shadow/name/one"
QUICK = shadow_settings.Settings(
    synchronized=frozenset({REF}), total_rate=1e6, thing_rate=1e6, outbound_rate=1e6, size_bytes=30 * 1024
)


class Cloud:
    """The connection and the service behind it. `fault(verb)` may answer with a code, or None for silence."""

    def __init__(self) -> None:
        self.connected = True
        self.held = shadow.Shadow()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fault: Callable[[str], int | None] = lambda verb: 0
        self.forbidden = False
        self.reason = 0  # of the PUBACK
        self.limit_bytes = shadow.SIZE_BYTES
        self._sinks: list[tuple[str, Callable[[Any], None]]] = []
        self._status: list[Callable[[bool], None]] = []

    # ---- the connection --------------------------------------------------------------------------------------------

    def on_status(self, callback: Callable[[bool], None], /) -> None:
        self._status.append(callback)

    def go(self, up: bool) -> None:
        self.connected = up
        for callback in self._status:
            callback(up)

    async def subscribe(self, filter_: str, qos: int, deliver: Callable[[Any], None], /) -> Callable[[], None]:
        await asyncio.sleep(0)
        if self.forbidden:
            raise errors.NucleusError("ACCESS_DENIED", f"cannot subscribe to {filter_}: the broker answered 0x87")
        entry = (filter_, deliver)
        self._sinks.append(entry)
        return lambda: self._sinks.remove(entry)

    async def publish_now(self, topic: str, payload: bytes, /) -> int:
        await asyncio.sleep(0)
        if not self.connected:
            raise errors.NucleusError("NETWORK_ERROR", "not connected")
        if self.reason < 0x80:
            self._answer(topic.rpartition("/")[2], payload)
        return self.reason

    # ---- the service -------------------------------------------------------------------------------------------------

    def _answer(self, verb: str, payload: bytes) -> None:
        body = msgspec.json.decode(payload)
        self.asked.append((verb, body))
        token, code = body["clientToken"], self.fault(verb)
        if code is None:
            return
        if code:
            self._tell(f"{verb}/rejected", shadow.rejection(shadow.Refused(code, "no"), token, 0))
        elif verb == "get" and self.exists:
            self._tell("get/accepted", shadow.whole(self.held, token, 0))
        elif verb == "delete" and self.exists:
            self.delete(token)
        elif verb == "update":
            self.update(payload)
        else:
            self._tell(f"{verb}/rejected", shadow.rejection(shadow.Refused(404, "No shadow"), token, 0))

    def update(self, payload: bytes) -> None:
        request = shadow.read(payload)
        assert isinstance(request, shadow.Request)
        after = shadow.update(self.held, request, 0, limit_bytes=self.limit_bytes)
        if isinstance(after, shadow.Refused):
            self._tell("update/rejected", shadow.rejection(after, request.client_token, 0))
            return
        self.held = after
        self._tell("update/accepted", shadow.accepted(request, after))

    def delete(self, token: str | None = None) -> None:
        version = self.held.version
        self.held = shadow.tombstone(self.held, 0)
        self._tell("delete/accepted", shadow.gone(version, token, 0))

    def edit(self, **sections: Any) -> None:
        """By somebody else."""
        self.update(msgspec.json.encode({"state": sections}))

    def _tell(self, words: str, payload: bytes) -> None:
        if not self.connected:
            return
        message = standins.Incoming(f"{PREFIX}/{words}", payload)
        for filter_, deliver in list(self._sinks):
            if topics.matches(filter_, message.topic, mqtt=True):
                deliver(message)

    @property
    def exists(self) -> bool:
        return bool(self.held.version) and not self.held.deleted

    @property
    def state(self) -> dict[str, Any] | None:
        return self.held.state if self.exists else None

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]


class Device:
    def __init__(self, folder: Path, cloud: Cloud, used: shadow_settings.Settings, answer_s: float = 20) -> None:
        self.log = standins.Log()
        self.now_s = 1000.0
        self.used: shadow_settings.Settings | None = used
        file = shadow_file.ShadowFile(store.ShadowStore(folder), lambda *_: None, self.log)
        self.shadows = shadows.Shadows(
            file, broker.Broker(), messages.Messages(), settings=lambda: self.used, log=self.log
        )
        self.sync = shadow_sync.ShadowSync(
            self.shadows,
            cloud,
            settings=lambda: self.used,
            log=self.log,
            answer_s=answer_s,
            steady=lambda: self.now_s,
        )
        self._cloud = cloud

    async def update(self, **sections: Any) -> None:
        await self.shadows.request("update", *REF, msgspec.json.encode({"state": sections}))

    async def delete(self) -> None:
        await self.shadows.request("delete", *REF)

    async def state(self) -> dict[str, Any] | None:
        held, _ = await self.shadows.look(REF)
        return None if held is None or held.deleted else held.state

    async def rests(self) -> None:
        """Waits until nothing is under way or due."""
        while True:
            await self.shadows.look(REF)  # behind everything that waits for the file
            if self.sync._used == self.used and not self._is_at_work():
                return

    def _is_at_work(self) -> bool:
        one = self.sync._watched.get(REF)
        if one is None:
            return False
        is_due = one.dirty and one.not_before_s <= self.now_s and self._cloud.connected
        return one.busy or (is_due and (self.used is None or self.used.strategy.periodic_s is None))

    def later(self, seconds: float) -> None:
        self.now_s += seconds
        self.sync.wake()


@contextlib.asynccontextmanager
async def running(
    folder: Path, cloud: Cloud, used: shadow_settings.Settings = QUICK, answer_s: float = 20
) -> AsyncIterator[Device]:
    device = Device(folder, cloud, used, answer_s)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(device.shadows.run()), group.create_task(device.sync.run())]
        async with asyncio.timeout(60):
            await device.rests()
            yield device
        for task in tasks:
            task.cancel()
