"""Wakes one waiting task from any thread; many rings before it looks are one."""

from __future__ import annotations

import asyncio


class Bell:
    """Made on the loop that waits. Born rung: what a predecessor left behind is looked at first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self._rung.set()

    def ring(self) -> None:
        """May be called from every thread, also when the loop has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self) -> None:
        """Until the next ring; for ever if there is none, since nothing else is owed."""
        await self._rung.wait()
        self._rung.clear()
