"""Messages on their way to the cloud: bounded, in order, kept while offline.

Rules of spec/nucleus.md 7.7: QoS 1 is kept offline; QoS 0 fails at once offline and is dropped on a disconnect; when full,
only QoS 0 messages are evicted, else the publish fails. Memory only; the spool on disk comes with the IPC issue.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from nucleus.core import errors
from nucleus.host import logs

IN_FLIGHT = 32  # design.md decision 3: unbounded in-flight costs 6 MiB
MAX_BYTES = 2_621_440  # `mqtt.spooler.maxSizeInBytes`
RETRYABLE = frozenset({0x80, 0x83, 0x97})  # unspecified, implementation specific, quota exceeded


class Message(Struct, frozen=True, kw_only=True):
    topic: str
    payload: bytes
    qos: int
    properties: dict[str, Any] = {}


class Spool:
    """A bounded queue in memory; `pump` sends from it with a bounded number in flight."""

    def __init__(self, log: logs.Log, max_bytes: int = MAX_BYTES) -> None:
        self._log = log
        self._max_bytes = max_bytes
        self._queue: collections.deque[Message] = collections.deque()
        self._bytes = 0
        self._online = False
        self._wake = asyncio.Event()
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._queue) + self._in_flight

    def put(self, message: Message) -> None:
        """Raises NucleusError NETWORK_ERROR (offline, QoS 0) or IO_WRITE_ERROR (full)."""
        if message.qos == 0 and not self._online:
            raise errors.NucleusError(
                "NETWORK_ERROR", f"cannot publish to {message.topic}: offline, and QoS 0 is not kept"
            )
        size = len(message.payload)
        if self._bytes + size > self._max_bytes:
            self._evict(size)
        if self._bytes + size > self._max_bytes:
            raise errors.NucleusError("IO_WRITE_ERROR", f"cannot publish to {message.topic}: the spool is full")
        self._queue.append(message)
        self._bytes += size
        self._wake.set()

    def online(self, up: bool) -> None:
        self._online = up
        if not up:
            for message in [one for one in self._queue if one.qos == 0]:
                self._forget(message)
        self._wake.set()

    async def pump(self, send: Callable[[Message], Awaitable[int]]) -> None:
        """Sends until cancelled. `send` returns the reason code of the PUBACK and raises when the connection is lost."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()  # no deadline: there may be nothing to send for months
                while self._online and self._queue and self._in_flight < IN_FLIGHT:
                    self._in_flight += 1
                    group.create_task(self._send_one(self._queue.popleft(), send))
                self._wake.clear()

    async def _send_one(self, message: Message, send: Callable[[Message], Awaitable[int]]) -> None:
        try:
            reason = await send(message)
        except Exception as error:  # AwsCrtError: the connection went away before the PUBACK
            self._log.debug("spool.send_interrupted", topic=message.topic, why=str(error))
            reason = 0x80 if message.qos else 0
            self._online = False
        self._in_flight -= 1
        if reason in RETRYABLE:
            self._queue.appendleft(message)
        else:
            self._bytes -= len(message.payload)
            if reason >= 0x80:
                self._log.error("spool.refused", topic=message.topic, reason=f"{reason:#04x}")
        self._wake.set()

    def _evict(self, size: int) -> None:
        for message in [one for one in self._queue if one.qos == 0]:
            if self._bytes + size <= self._max_bytes:
                return
            self._forget(message)

    def _forget(self, message: Message) -> None:
        self._queue.remove(message)
        self._bytes -= len(message.payload)
        self._log.warning("spool.dropped", topic=message.topic, qos=message.qos)
