"""Messages on their way to the cloud: bounded, in order, kept while offline.

Rules of spec/nucleus.md 7.7: QoS 1 is kept offline; QoS 0 fails at once offline and is dropped on a disconnect; when full,
only QoS 0 messages are evicted, else the publish fails. Memory only; the spool on disk comes with the IPC issue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from nucleus.core import errors, handover
from nucleus.host import logs

IN_FLIGHT = 32  # design.md decision 3: unbounded in-flight costs 6 MiB
MAX_BYTES = 2_621_440  # `mqtt.spooler.maxSizeInBytes`
MAX_MESSAGES = 10_000  # empty payloads cost memory too
LOST = 0x80
RETRYABLE = frozenset({LOST, 0x83, 0x97})  # unspecified, implementation specific, quota exceeded
STALL_S = 1.0
_LOOK_S = 0.005


class Message(Struct, frozen=True, kw_only=True):
    topic: str
    payload: bytes
    qos: int
    properties: dict[str, Any] = {}


class Spool:
    """A bounded queue in memory; `pump` sends from it, oldest first, with a bounded number in flight.

    A message that could not be sent keeps its place. After a failure nothing is sent for `stall_s`, or until the next
    connection: neither a busy broker nor a connection that is about to be lost is hammered.
    """

    def __init__(self, log: logs.Log, max_bytes: int = MAX_BYTES, *, stall_s: float = STALL_S) -> None:
        self._log = log
        self._max_bytes = max_bytes
        self._stall_s = stall_s
        self._queue: list[tuple[int, Message]] = []  # a heap by number
        self._number = itertools.count()
        self._bytes = 0
        self._online = False
        self._stalled: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._in_flight: dict[int, Message] = {}
        self._held = False
        self._expected = False  # to be online in a moment, as the process image before this one was

    def __len__(self) -> int:
        return len(self._queue) + len(self._in_flight)

    def put(self, message: Message) -> None:
        """Raises NucleusError NETWORK_ERROR (offline, QoS 0) or IO_WRITE_ERROR (full)."""
        if message.qos == 0 and not (self._online or self._expected):
            raise errors.NucleusError(
                "NETWORK_ERROR", f"cannot publish to {message.topic}: offline, and QoS 0 is not kept"
            )
        size = _size(message)
        if self._bytes + size > self._max_bytes or len(self) >= MAX_MESSAGES:
            self._evict(size)
        if self._bytes + size > self._max_bytes or len(self) >= MAX_MESSAGES:
            raise errors.NucleusError("IO_WRITE_ERROR", f"cannot publish to {message.topic}: the spool is full")
        heapq.heappush(self._queue, (next(self._number), message))
        self._bytes += size
        self._wake.set()

    def online(self, up: bool) -> None:
        self._online, self._expected = up, False
        if not up:
            for entry in [one for one in self._queue if one[1].qos == 0]:
                self._forget(entry)
        self._go_on()

    # ---- to and from another process image -------------------------------------------------------------------------

    async def hold(self, within_s: float) -> None:
        """Sends nothing more and waits for the broker's word about what was sent: what is carried is sent again."""
        self._held = True
        try:
            async with asyncio.timeout(within_s):
                while self._in_flight:  # noqa: ASYNC110  a moment, once
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return

    def carry(self) -> tuple[handover.Message, ...]:
        """Everything that the broker has not confirmed, in its order."""
        entries = sorted([*self._queue, *self._in_flight.items()], key=lambda one: one[0])
        return tuple(_carried(message) for _, message in entries)

    def take_over(self, messages: tuple[handover.Message, ...], *, online: bool) -> None:
        """Goes on with these; `online`: a connection is about to come back, so QoS 0 is kept until it is known."""
        self._expected = online
        for one in messages:
            properties = one.properties | ({} if one.correlation is None else {"correlationData": one.correlation})
            message = Message(topic=one.topic, payload=one.payload, qos=one.qos, properties=properties)
            heapq.heappush(self._queue, (next(self._number), message))
            self._bytes += _size(message)
        self._wake.set()

    async def pump(self, send: Callable[[Message], Awaitable[int]]) -> None:
        """Sends until cancelled. `send` returns the reason code of the PUBACK and raises when the connection is lost."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()  # no deadline: there may be nothing to send for months
                while self._may_send():
                    number, message = heapq.heappop(self._queue)
                    self._in_flight[number] = message
                    group.create_task(self._send_one((number, message), send))
                self._wake.clear()

    def _may_send(self) -> bool:
        is_free = self._online and self._stalled is None and not self._held
        return is_free and bool(self._queue) and len(self._in_flight) < IN_FLIGHT

    async def _send_one(self, entry: tuple[int, Message], send: Callable[[Message], Awaitable[int]]) -> None:
        _, message = entry
        try:
            reason = await send(message)
        except Exception as error:  # AwsCrtError: the connection went away before the PUBACK, or the PUBACK never came
            self._log.debug("spool.send_interrupted", topic=message.topic, why=str(error))
            reason = LOST if message.qos else 0
            self._stall()
        del self._in_flight[entry[0]]
        if reason in RETRYABLE:
            heapq.heappush(self._queue, entry)
            self._stall()
        else:
            self._bytes -= _size(message)
            if reason >= 0x80:
                self._log.error("spool.refused", topic=message.topic, reason=f"{reason:#04x}")
        self._wake.set()

    def _stall(self) -> None:
        if self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(self._stall_s, self._go_on)

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._wake.set()

    def _evict(self, size: int) -> None:
        for entry in sorted(one for one in self._queue if one[1].qos == 0):
            if self._bytes + size <= self._max_bytes and len(self) < MAX_MESSAGES:
                return
            self._forget(entry)

    def _forget(self, entry: tuple[int, Message]) -> None:
        self._queue.remove(entry)
        heapq.heapify(self._queue)
        self._bytes -= _size(entry[1])
        self._log.warning("spool.dropped", topic=entry[1].topic, qos=entry[1].qos)


def _carried(message: Message) -> handover.Message:
    properties = dict(message.properties)
    correlation = properties.pop("correlationData", None)
    return handover.Message(
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        properties=properties,
        correlation=correlation,
    )


def _size(message: Message) -> int:
    return len(message.payload)
