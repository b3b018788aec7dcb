"""Time that moves only when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Clock:
    """Seconds since the test began; every timer of the nucleus, and what the test schedules, runs by it.

    Its wall clock begins at 2026-01-01 00:00 UTC. The component's own process has the machine's clock.
    """

    WALL_AT_START_S = 1_767_225_600.0

    def __init__(self) -> None:
        self._now_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes the loop's timers run by this clock."""
        loop.time = self.now  # type: ignore[method-assign]  # asyncio asks the loop for the time of every timer
        self._loop = loop

    def now(self) -> float:
        return self._now_s

    def wall(self) -> float:
        """Epoch seconds."""
        return self.WALL_AT_START_S + self._now_s

    def advance(self, seconds: float) -> None:
        """Moves on, runs every timer that is due, and returns when they have run."""
        if seconds < 0:
            raise ValueError("time does not run backwards here")
        assert self._loop is not None, "the nucleus does not run"
        self._now_s += seconds
        for _ in range(3):  # the loop wakes, runs what is due, and what that scheduled at once
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(10)

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Schedules an action, which `advance` runs in the nucleus's thread."""
        assert self._loop is not None, "the nucleus does not run"
        self._loop.call_soon_threadsafe(lambda: self._loop and self._loop.call_at(seconds, action))
