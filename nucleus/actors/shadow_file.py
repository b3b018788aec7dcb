"""The one user of the shadows' file: a thread of its own does what it is asked, one thing after the other.

In: `call`. Out: results on the loop, and `report(is_well, why)` when the file fails, was damaged or works again. A file that
failed is opened anew, and checked, at the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent import futures
from typing import Any, Protocol, TypeVar

from nucleus.core import errors
from nucleus.store import shadows as store

T = TypeVar("T")


class Log(Protocol):
    """The part of host.logs.Log that is used here."""

    def error(self, event: str, /, **fields: Any) -> None: ...


class ShadowFile:
    """Opened by the first call, which makes the thread, too."""

    def __init__(self, shadows: store.ShadowStore, report: Callable[[bool, str], None], log: Log) -> None:
        self._store = shadows
        self._report = report
        self._log = log
        self._worker = futures.ThreadPoolExecutor(1, "shadows")
        self._is_open = False
        self._is_over = False

    async def call(self, work: Callable[[store.ShadowStore], T]) -> T:
        """Does something with the store in its thread. Raises what `work` raises, and NucleusError for a faulty file."""
        if self._is_over:
            raise errors.NucleusError("IO_READ_ERROR", "cannot use the shadows: the nucleus is stopping")
        loop = asyncio.get_running_loop()
        if not self._is_open:
            await self._open(loop)
        try:
            return await loop.run_in_executor(self._worker, work, self._store)
        except errors.NucleusError as error:
            self._is_open = False
            self._failed(error)
            raise

    def close(self) -> None:
        """Waits for what is being done, then nothing more is done."""
        self._is_over = True
        self._worker.shutdown(wait=True)
        self._store.close()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            damage = await loop.run_in_executor(self._worker, self._store.open)
        except errors.NucleusError as error:
            self._failed(error)
            raise
        self._is_open = True
        if damage:
            self._log.error("shadow.file_damaged", why=damage)
        self._report(True, damage)

    def _failed(self, error: errors.NucleusError) -> None:
        self._log.error("shadow.file_failed", code=error.code, why=error.detail)
        self._report(False, error.detail)
