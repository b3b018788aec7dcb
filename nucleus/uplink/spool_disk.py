"""The spool's side of its file: one thread of its own writes everything that came in meanwhile with one fsync.

All methods are called on the loop, and so are the callbacks. While a transaction is under way, what comes in waits for the
next one: the busier the components, the more messages share an fsync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

from msgspec import Struct

from nucleus.core import errors
from nucleus.host import logs
from nucleus.store import spool as store_

REMOVE_AFTER_S = 0.5  # removals alone are not worth an fsync each
RETRY_S = 10.0  # after the disk has refused them
PAGE_ROWS, PAGE_BYTES = 64, 1024 * 1024
SHRINK_AFTER = 1000  # removed rows

Failure = Exception | None
Row = store_.Row


class _Pending(Struct):
    row: Row
    done: Callable[[Failure], None]


class Disk:
    """Messages on the disk that are not in memory are `unread`; all of them have numbers above `read_up_to`.

    `on_failed` is told, once, why the file cannot be used any more; nothing is written then.
    """

    def __init__(self, store: store_.SpoolStore, log: logs.Log, on_failed: Callable[[str], None]) -> None:
        self._store = store
        self._log = log
        self._on_failed = on_failed
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._added: list[_Pending] = []
        self._removed: list[int] = []
        self._writing = False
        self._reading = False
        self._later: asyncio.TimerHandle | None = None
        self._freed = 0
        self._delay_s = REMOVE_AFTER_S
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.failed = False
        self.unread = 0
        self.read_up_to = 0

    def exists(self) -> bool:
        return self._store.exists()

    def open(self, opened: Callable[[store_.Totals, str], None]) -> None:
        """Calls back with what is in the file and what was wrong with it, unless it cannot be used at all."""

        def done(found: Any, error: Failure) -> None:
            if error is not None:
                self._fail(str(error))
                return
            self.failed = False
            self.unread, self.read_up_to = found[0].count, 0
            opened(*found)

        self._submit(self._store.open, done)

    def add(self, row: Row, done: Callable[[Failure], None]) -> None:
        """Calls back when the row is durable, in the order of the calls, or with why it is not."""
        self._added.append(_Pending(row, done))
        self._write_soon()

    def remove(self, number: int) -> None:
        if self.failed:
            return
        self._removed.append(number)
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(self._delay_s, self._write_soon)

    def read(self, taken: Callable[[Sequence[Row], Sequence[tuple[int, int]]], None]) -> None:
        """Calls back with the next unread rows, and number and size of damaged ones; nothing while a read is under way."""
        if self._reading or self.failed:
            return
        self._reading = True

        def done(found: Any, error: Failure) -> None:
            self._reading = False
            if error is not None:
                self._fail(str(error))
                return
            rows, damaged = found
            numbers = [row.number for row in rows] + [number for number, _ in damaged]
            self.unread = max(self.unread - len(numbers), 0) if numbers else 0
            self.read_up_to = max([self.read_up_to, *numbers])
            for number, _ in damaged:
                self.remove(number)
            taken(rows, damaged)

        self._submit(lambda: self._store.page(self.read_up_to, PAGE_ROWS, PAGE_BYTES), done)

    async def settle(self) -> None:
        """Writes what is waiting and returns when it is written."""
        while self._added or self._removed or self._writing:
            if self._delay_s == RETRY_S and not self._added:
                return  # the disk does not take it now
            self._write_soon()
            await self._idle.wait()

    def close(self) -> None:
        """Once it has settled; waits for a transaction under way. What is added from now on is refused."""
        self._closed = self.failed = True
        self._thread.shutdown(wait=True)
        self._store.close()

    # ---- one transaction at a time -----------------------------------------------------------------------------------

    def _write_soon(self) -> None:
        """In the next turn of the loop: publishes of one turn go together."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._writing:
            self._writing = True
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        added, self._added = self._added, []
        removed, self._removed = self._removed, []
        if self.failed or not (added or removed):
            self._written(added, self._refusal() if added else None)
            return
        rows = [one.row for one in added]
        self._submit(lambda: self._store.write(rows, removed), lambda _, error: self._ended(added, removed, error))

    def _ended(self, added: list[_Pending], removed: list[int], error: Failure) -> None:
        if error is not None and not isinstance(error, errors.NucleusError):
            self._fail(str(error))
        elif error is not None and not added:
            self._log.warning("spool.not_removed", messages=len(removed), why=str(error))
            self._delay_s = RETRY_S
            self._removed = [*removed, *self._removed]
        elif error is not None:
            self._removed = [*removed, *self._removed]
        else:
            self._freed += len(removed)
            self._delay_s = REMOVE_AFTER_S
        self._written(added, error)

    def _written(self, added: list[_Pending], error: Failure) -> None:
        self._writing = False
        self._idle.set()
        for one in added:
            one.done(error)
        if self._added:
            self._write_soon()
        elif self._removed and self._later is None and not self.failed:
            self._later = asyncio.get_running_loop().call_later(self._delay_s, self._write_soon)
        if self._freed >= SHRINK_AFTER and not self.failed:
            self._freed = 0
            self._submit(self._store.shrink, lambda _, error: None)  # it does not matter if it has to wait

    def _refusal(self) -> Exception:
        if self._closed:
            return errors.NucleusError("IO_WRITE_ERROR", "cannot keep the message: the nucleus stops")
        return RuntimeError("the spool on disk cannot be used")

    def _fail(self, why: str) -> None:
        if not self.failed:
            self.failed = True
            self._removed.clear()
            self._on_failed(why)

    def _submit(self, work: Callable[[], Any], done: Callable[[Any, Failure], None]) -> None:
        loop = asyncio.get_running_loop()

        def run() -> None:
            found, error = None, None
            try:
                found = work()
            except Exception as caught:  # the loop decides what becomes of it
                error = caught
            try:
                loop.call_soon_threadsafe(done, found, error)
            except RuntimeError:  # the loop has ended: nobody is left to tell
                return

        self._thread.submit(run)
