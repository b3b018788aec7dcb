"""What waits to be sent: a queue in memory which, for messages of components, goes on on the disk.

On the disk are all messages of components with QoS 1 if the settings say so. The oldest of them are in memory, too, at most
WINDOW; the rest is read when these have been sent, so that a spool of gigabytes does not fill the memory.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Sequence

from nucleus.core import errors, mqtt_settings
from nucleus.host import logs
from nucleus.store import spool as store_
from nucleus.uplink import spool_disk, spool_entries
from nucleus.uplink.spool_entries import COMPONENTS, OWN, Entry

MAX_MESSAGES = 10_000  # of each lane in memory: empty payloads cost memory too
WINDOW = 128


class Backlog:
    """`wake` is called when there may be something to send; `number` is the last one that an entry has got."""

    def __init__(
        self,
        log: logs.Log,
        own_bytes: int,
        store: store_.SpoolStore | None,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._log = log
        self._own_bytes = own_bytes
        self._clock = clock
        self._wake = wake
        self._settings = mqtt_settings.Settings()
        self._queue: list[tuple[tuple[int, int], Entry]] = []  # a heap
        self._sent: dict[tuple[int, int], Entry] = {}  # popped and not released
        self._bytes = [0, 0]  # of each lane
        self._counts = [0, 0]  # of each lane, in memory
        self._window = 0  # entries in memory that are on the disk
        self._unread_bytes = 0  # of those that are on the disk only
        self._disk = spool_disk.Disk(store, log, self._fall_back) if store is not None else None
        self._attached = False  # the disk is open, or being opened
        self.number = 0
        self.ready = asyncio.Event()  # not while the disk is being opened
        self.ready.set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent) + (self._disk.unread if self._disk is not None else 0)

    def configure(self, settings: mqtt_settings.Settings) -> None:
        """What is on the disk is sent from there whatever the settings say."""
        self._settings = settings
        if self._disk is not None and not self._attached and (settings.disk or self._disk.exists()):
            self._attached = True
            self.ready.clear()
            self._disk.open(self._opened)
        elif self.uses_disk and self.ready.is_set():
            self._move_to_disk()

    @property
    def uses_disk(self) -> bool:
        return self._settings.disk and self._disk is not None and self._attached and not self._disk.failed

    def waiting(self) -> list[Entry]:
        """What is in the queue in memory, in order."""
        return [entry for _, entry in sorted(self._queue, key=lambda one: one[0])]

    def in_memory_only(self) -> list[Entry]:
        """What would be gone with this process, in order."""
        found = [*self.waiting(), *self._sent.values()]
        return sorted((one for one in found if not one.stored), key=lambda one: one.key)

    # ---- room --------------------------------------------------------------------------------------------------------

    def is_full(self, lane: int, size: int) -> bool:
        return self._bytes[lane] + size > self._most(lane) or self._counts[lane] >= MAX_MESSAGES

    def fullness(self, lane: int) -> str:
        return f"the spool is full ({self._bytes[lane]} of {self._most(lane)} bytes wait for the cloud)"

    def _most(self, lane: int) -> int:
        return self._own_bytes if lane == OWN else self._settings.spool_bytes

    def count(self, entry: Entry) -> None:
        """From now on it takes room, until it is released."""
        self._bytes[entry.key[0]] += entry.size
        self._counts[entry.key[0]] += 1

    def release(self, entry: Entry) -> None:
        """It does not count any more, and leaves the disk."""
        lane, number = entry.key
        self._sent.pop(entry.key, None)
        self._bytes[lane] -= entry.size
        self._counts[lane] -= 1
        if entry.stored and self._disk is not None:
            self._window -= 1
            self._disk.remove(number)

    # ---- the queue ---------------------------------------------------------------------------------------------------

    def push(self, entry: Entry) -> None:
        """Into its place; also one that was popped and has not been sent."""
        self._sent.pop(entry.key, None)
        heapq.heappush(self._queue, (entry.key, entry))
        self._wake()

    def head(self) -> Entry | None:
        """The oldest message; None if there is none, or if older ones are still to be read from the disk."""
        if not self._queue:
            return None
        (lane, number), entry = self._queue[0]
        is_later = self._disk is not None and self._disk.unread > 0 and number > self._disk.read_up_to
        is_later = is_later or not self.ready.is_set()
        return None if lane == COMPONENTS and is_later else entry

    def pop(self) -> None:
        key, entry = heapq.heappop(self._queue)
        self._sent[key] = entry

    def drop(self, entries: Sequence[Entry], why: str) -> None:
        """Forgets messages of the queue, and says so once for all."""
        if not entries:
            return
        self._take_out(entries)
        for one in entries:
            self.release(one)
        first = entries[0].message
        self._log.warning("spool.dropped", messages=len(entries), topic=first.topic, qos=first.qos, why=why)

    def _take_out(self, entries: Iterable[Entry]) -> None:
        gone = {one.key for one in entries}
        self._queue = [one for one in self._queue if one[0] not in gone]
        heapq.heapify(self._queue)

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def store(self, entry: Entry, waiting: asyncio.Future[None] | None) -> None:
        """Writes it, then pushes it. What cannot be written stays in memory if it was there, or if the disk is given up."""
        assert self._disk is not None
        size = spool_entries.stored_size(entry.message)
        self._bytes[entry.key[0]] += size - entry.size
        entry.size = size

        def done(error: Exception | None) -> None:
            if error is None:
                self._kept(entry)
            elif waiting is None or not isinstance(error, errors.NucleusError):
                self.push(entry)
                error = None
            else:
                self.release(entry)
            if waiting is not None and not waiting.done():
                waiting.set_result(None) if error is None else waiting.set_exception(error)

        self._disk.add(spool_entries.row(entry, self._clock()), done)

    def read_on(self) -> None:
        """Sees to it that the next messages of the disk come into memory in time."""
        if self._disk is not None and self._disk.unread and self._window <= WINDOW // 2:
            self._disk.read(self._have_read)

    async def settle(self) -> None:
        """Returns when the disk is as it should be."""
        if self._disk is not None and self._attached:
            await self._disk.settle()

    def close(self) -> None:
        if self._disk is not None and self._attached:
            self._disk.close()

    def _opened(self, found: store_.Totals, wrong: str) -> None:
        if wrong:
            self._log.error("spool.damaged", what=wrong)
        if found.count:
            self._log.info("spool.found", messages=found.count, bytes=found.size)
        self.number = max(self.number, found.last)
        self._bytes[COMPONENTS] += found.size
        self._unread_bytes = found.size
        if self._settings.disk:
            self._move_to_disk()
        self.ready.set()
        self._wake()

    def _move_to_disk(self) -> None:
        """What was taken while the settings said Memory, too."""
        chosen = [one for one in self.waiting() if one.key[0] == COMPONENTS and one.message.qos and not one.stored]
        self._take_out(chosen)
        for one in chosen:
            self.store(one, None)

    def _kept(self, entry: Entry) -> None:
        """It is on the disk: in memory, too, if its turn comes soon."""
        assert self._disk is not None
        entry.stored = True
        if self._disk.unread == 0 and self._window < WINDOW:
            self._window += 1
            self._disk.read_up_to = max(entry.key[1], self._disk.read_up_to)
            self.push(entry)
            return
        self._disk.unread += 1
        self._unread_bytes += entry.size
        self._counts[COMPONENTS] -= 1
        self._wake()

    def _have_read(self, rows: Sequence[store_.Row], damaged: Sequence[tuple[int, int]]) -> None:
        for row in rows:
            entry = spool_entries.from_row(row, self._clock())
            self._unread_bytes -= entry.size
            self._window += 1
            self._counts[COMPONENTS] += 1
            self.push(entry)
        for _, size in damaged:
            self._unread_bytes -= size
            self._bytes[COMPONENTS] -= size
        if damaged:
            self._log.error("spool.damaged", what=f"{len(damaged)} messages on the disk cannot be read and are lost")
        self._wake()

    def _fall_back(self, why: str) -> None:
        """Goes on in memory; what is on the disk only is looked for at the next start."""
        assert self._disk is not None
        self._log.error("spool.in_memory", why=why, left_on_disk=self._disk.unread)
        for one in (*self.waiting(), *self._sent.values()):
            one.stored = False
        self._window = 0
        self._bytes[COMPONENTS] -= self._unread_bytes
        self._disk.unread = self._unread_bytes = 0
        self.ready.set()
        self._wake()
