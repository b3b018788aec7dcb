"""Working small stand-ins for what the service's actors talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cloud.mqtt import port


def encoded(payload: Any) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return payload if isinstance(payload, bytes) else msgspec.json.encode(payload)


class FakeLog:
    """A logger that keeps events; a test can wait for one. To be used on the loop's thread, or from a worker."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))
        self._loop.call_soon_threadsafe(self._changed.set)

    debug = warning = error = info

    async def told(self, event: str) -> dict[str, Any]:
        """The fields of the first such event, once it was logged."""
        async with asyncio.timeout(20):
            while True:
                for name, fields in self.events:
                    if name == event:
                        return fields
                self._changed.clear()
                await self._changed.wait()


class FakeBroker:
    """A broker in memory: keeps what the service publishes, hands in what a test lets devices publish.

    While `down`, nothing is taken. From the message after `hang_after` on, it acknowledges nothing.
    """

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.snapshots: list[port.Snapshot] = []
        self.kicked: list[str] = []
        self.only: dict[str, str] = {}
        self.done: list[str] = []
        self.down = False
        self.hang_after = -1
        self.refused = asyncio.Event()
        self.hanging = asyncio.Event()
        self._arrived: asyncio.Queue[port.Inbound] = asyncio.Queue()
        self._changed = asyncio.Condition()

    async def publish(self, topic: str, payload: bytes, qos: int = 1, *, only: str = "") -> None:
        assert qos == 1
        self.only[topic] = only
        if self.down:
            self.refused.set()
            raise port.BrokerUnavailableError(f"cannot publish to {topic}: the broker is down")
        if len(self.published) == self.hang_after:
            self.hanging.set()
            await asyncio.Event().wait()
        async with self._changed:
            self.published.append((topic, payload))
            self._changed.notify_all()

    async def push(self, snapshot: port.Snapshot) -> None:
        if self.down:
            raise port.BrokerUnavailableError("cannot push principals: the broker is down")
        async with self._changed:
            self.snapshots.append(snapshot)
            self._changed.notify_all()

    async def kick(self, client_id: str) -> None:
        self.kicked.append(client_id)

    @property
    def inbound(self) -> AsyncIterator[port.Inbound]:
        return self._receive()

    async def _receive(self) -> AsyncIterator[port.Inbound]:
        while True:
            yield await self._arrived.get()

    def hear(self, topic: str, payload: Any, client_id: str = "T") -> None:
        """A device publishes what `encoded` makes of the payload."""
        self._arrived.put_nowait(
            port.Inbound(topic, encoded(payload), client_id, "ab" * 32, lambda: self.done.append(topic))
        )

    async def answer(self, suffix: str, *, skip: int = 0) -> Any:
        """The payload of the message on a topic ending so, once it is there; `skip` earlier ones are passed over."""
        async with asyncio.timeout(20), self._changed:
            while True:
                found = [payload for topic, payload in self.published if topic.endswith(suffix)]
                if len(found) > skip:
                    return msgspec.json.decode(found[skip])
                await self._changed.wait()

    async def pushed(self, version: int) -> port.Snapshot:
        """The snapshot of this version or a later one, once it was pushed."""
        async with asyncio.timeout(20), self._changed:
            while not self.snapshots or self.snapshots[-1].version < version:
                await self._changed.wait()
            return self.snapshots[-1]
