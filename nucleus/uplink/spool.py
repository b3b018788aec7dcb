"""Messages on their way to the cloud: bounded, in order, kept while offline.

Rules of spec/nucleus.md 7.7: QoS 1 is kept offline; QoS 0 fails at once offline and is dropped on a disconnect, unless the
settings keep it; when full, only QoS 0 messages are evicted, else the publish fails. Two lanes: the nucleus's own messages, in
memory and first, and those of components, which `mqtt.spooler.storageType: Disk` makes durable before they are acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from nucleus.core import errors, handover, mqtt_settings
from nucleus.host import logs
from nucleus.store import spool as store_
from nucleus.uplink import spool_backlog, spool_entries
from nucleus.uplink.spool_entries import COMPONENTS, OWN, Entry

Message = spool_entries.Message

MAX_BYTES = mqtt_settings.SPOOL_BYTES  # of the nucleus's own messages; those of components have a setting
MAX_MESSAGES = spool_backlog.MAX_MESSAGES
LOST = 0x80
RETRYABLE = frozenset({LOST, 0x83, 0x97})  # unspecified, implementation specific, quota exceeded
STALL_S = 1.0
SETTLE_S = 2.0
_LOOK_S = 0.005


class Spool:
    """A bounded queue; `pump` sends from it, oldest first, with a bounded number in flight and at a bounded rate.

    A message that could not be sent keeps its place. After a failure nothing is sent for `stall_s`, or until the next
    connection: neither a busy broker nor a connection that is about to be lost is hammered.
    """

    def __init__(
        self,
        log: logs.Log,
        max_bytes: int = MAX_BYTES,
        *,
        stall_s: float = STALL_S,
        store: store_.SpoolStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._stall_s = stall_s
        self._clock = clock
        self._settings = mqtt_settings.Settings()
        self._wake = asyncio.Event()
        self._backlog = spool_backlog.Backlog(log, max_bytes, store, clock, self._wake.set)
        self._turns = asyncio.Lock()  # who waited for the disk to be opened goes before who comes in that moment
        self._in_flight: set[tuple[int, int]] = set()
        self._rate = spool_entries.Rate(clock())
        self._pause: asyncio.TimerHandle | None = None  # until the rate allows the next one
        self._stalled: asyncio.TimerHandle | None = None
        self._online = False
        self._held = False
        self._expected = False  # to be online in a moment, as the process image before this one was

    def __len__(self) -> int:
        return len(self._backlog)

    def configure(self, settings: mqtt_settings.Settings) -> None:
        """Puts settings into force; on the loop, at any time."""
        if settings.problems != self._settings.problems:
            for problem in settings.problems:
                self._log.warning("spool.setting_ignored", why=problem)
        self._settings = settings
        self._backlog.configure(settings)
        self._wake.set()

    def put(self, message: Message) -> None:
        """Takes a message of the nucleus. Raises NucleusError NETWORK_ERROR (offline, QoS 0) or IO_WRITE_ERROR (full)."""
        self._backlog.push(self._admitted(message, OWN, len(message.payload)))

    async def keep(self, message: Message) -> None:
        """Takes a message of a component; a QoS 1 message is durable when this returns, if the settings say Disk.

        Raises NucleusError as `put`, and BAD_REQUEST for one that is too large; with Disk also DISK_SPACE_CRITICAL.
        """
        size, most = len(message.payload), self._settings.message_bytes
        if size > most:
            why = f"its {size} bytes are more than mqtt.maxMessageSizeInBytes, {most}"
            raise errors.NucleusError("BAD_REQUEST", f"cannot publish to {message.topic}: {why}")
        async with self._turns:
            await self._backlog.ready.wait()
            if not (self._backlog.uses_disk and message.qos):
                self._backlog.push(self._admitted(message, COMPONENTS, size))
                return
            entry = self._admitted(message, COMPONENTS, spool_entries.stored_size(message))
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._backlog.store(entry, written)
        await written

    def online(self, up: bool) -> None:
        self._online, self._expected = up, False
        if not up:
            gone = [one for one in self._backlog.waiting() if not self._outlives(one.key[0], one.message)]
            self._backlog.drop(gone, "offline, and QoS 0 is not kept")
        self._go_on()

    # ---- to and from another process image -------------------------------------------------------------------------

    async def hold(self, within_s: float) -> None:
        """Sends nothing more and waits for the broker's word about what was sent: what is carried is sent again."""
        self._held = True
        try:
            async with asyncio.timeout(within_s):
                while self._in_flight:  # noqa: ASYNC110  a moment, once
                    await asyncio.sleep(_LOOK_S)
                await self._backlog.settle()
        except TimeoutError:
            return

    def carry(self) -> tuple[handover.Message, ...]:
        """Everything that the broker has not confirmed and that is not on the disk, in its order."""
        return tuple(spool_entries.carried(one) for one in self._backlog.in_memory_only())

    def take_over(self, messages: tuple[handover.Message, ...], *, online: bool) -> None:
        """Goes on with these; `online`: a connection is about to come back, so QoS 0 is kept until it is known."""
        self._expected = online
        for one in messages:
            entry = spool_entries.taken_over(one, self._backlog.number + 1)
            self._backlog.number = max(self._backlog.number, entry.key[1])
            self._backlog.count(entry)
            self._backlog.push(entry)

    # ---- taking ------------------------------------------------------------------------------------------------------

    def _admitted(self, message: Message, lane: int, size: int) -> Entry:
        """An entry that counts against the bounds. Raises NucleusError."""
        backlog = self._backlog
        if not (self._online or self._expected or self._outlives(lane, message)):
            raise errors.NucleusError(
                "NETWORK_ERROR", f"cannot publish to {message.topic}: offline, and QoS 0 is not kept"
            )
        if backlog.is_full(lane, size):
            self._evict(lane, size)
        if backlog.is_full(lane, size):
            raise errors.NucleusError("IO_WRITE_ERROR", f"cannot publish to {message.topic}: {backlog.fullness(lane)}")
        backlog.number += 1
        entry = Entry((lane, backlog.number), message, size, spool_entries.expiry(message, self._clock()))
        backlog.count(entry)
        return entry

    def _outlives(self, lane: int, message: Message) -> bool:
        """Whether it stays while there is no connection."""
        return message.qos > 0 or (lane == COMPONENTS and self._settings.keep_qos_0)

    def _evict(self, lane: int, size: int) -> None:
        """Makes room by dropping QoS 0 messages that wait, the oldest first."""
        for entry in self._backlog.waiting():
            if not self._backlog.is_full(lane, size):
                return
            if entry.key[0] == lane and entry.message.qos == 0:
                self._backlog.drop([entry], "the spool is full")

    # ---- sending -----------------------------------------------------------------------------------------------------

    async def pump(self, send: Callable[[Message], Awaitable[int]]) -> None:
        """Sends until cancelled. `send` returns the reason code of the PUBACK and raises when the connection is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()  # no deadline: there may be nothing to send for months
                    self._wake.clear()
                    while (entry := self._next()) is not None:
                        self._in_flight.add(entry.key)
                        group.create_task(self._send_one(entry, send))
                    self._backlog.read_on()
        finally:
            await self._settle()

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._backlog.settle()
        except TimeoutError:  # a slow disk; what is not removed from it is sent again
            return
        self._backlog.close()

    def _next(self) -> Entry | None:
        """The message to send now, popped; None: there is none, or not yet."""
        while self._may_send() and (entry := self._backlog.head()) is not None:
            now = self._clock()
            if entry.expires_at is not None and now >= entry.expires_at:
                self._backlog.drop([entry], "it has expired")
                continue
            wait_s = self._rate.wait_s(now, len(entry.message.payload))
            if wait_s > 0:
                self._pause = asyncio.get_running_loop().call_later(wait_s, self._end_pause)
                return None
            self._backlog.pop()
            return entry
        return None

    def _may_send(self) -> bool:
        is_free = self._online and self._stalled is None and self._pause is None and not self._held
        return is_free and len(self._in_flight) < self._settings.in_flight

    def _end_pause(self) -> None:
        self._pause = None
        self._wake.set()

    async def _send_one(self, entry: Entry, send: Callable[[Message], Awaitable[int]]) -> None:
        message = spool_entries.to_send(entry, self._clock())
        try:
            reason = await send(message)
        except Exception as error:  # AwsCrtError: the connection went away before the PUBACK, or the PUBACK never came
            self._log.debug("spool.send_interrupted", topic=message.topic, why=str(error))
            reason = LOST if message.qos else 0
            self._stall()
        self._in_flight.discard(entry.key)
        if reason in RETRYABLE and self._may_retry(entry):
            self._backlog.push(entry)
            self._stall()
        else:
            self._backlog.release(entry)
            if reason >= 0x80:
                self._log.error("spool.refused", topic=message.topic, reason=f"{reason:#04x}", attempts=entry.failures)
        self._wake.set()

    def _may_retry(self, entry: Entry) -> bool:
        """The nucleus's own messages are not given up."""
        entry.failures += 1
        is_endless = entry.key[0] == OWN or self._settings.retries == mqtt_settings.ENDLESS
        return is_endless or entry.failures <= self._settings.retries

    def _stall(self) -> None:
        if self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(self._stall_s, self._go_on)

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self._wake.set()
