"""A script that was started: its process, its deadline, its last words; and how these read in sentences."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping

from nucleus.core import handover
from nucleus.core.lifecycle import Phase
from nucleus.host import process

MAX_REASON = 300  # characters of a script's last line that go into the reason


class Script:
    """`last` is filled with the last line of each stream. `timeout_s` 0 means no deadline; it counts from `began_at`."""

    def __init__(
        self,
        phase: Phase,
        child: process.Process,
        last: dict[str, str],
        timeout_s: float,
        began_at: float | None = None,
    ) -> None:
        self.phase = phase
        self.child = child
        self.last = last
        self.timeout_s = timeout_s
        self._began_at = time.monotonic() if began_at is None else began_at
        self._timeout: asyncio.Timeout | None = None

    async def wait(self) -> int:
        """The exit code. Raises TimeoutError at the deadline."""
        left_s = max(self._began_at + self.timeout_s - time.monotonic(), 0.0) if self.timeout_s else None
        async with asyncio.timeout(left_s) as self._timeout:
            return await self.child.wait()

    def drop_deadline(self) -> None:
        self.timeout_s = 0.0
        if self._timeout is not None:
            self._timeout.reschedule(None)

    def progress(self) -> str:
        limit = f" of {self.timeout_s:.0f} s" if self.timeout_s else ""
        return f"{self.phase.value.capitalize()} script, {time.monotonic() - self._began_at:.0f} s{limit}"

    def carry(self) -> handover.Script:
        return handover.Script(
            phase=self.phase.value,
            child=self.child.carry(),
            last=self.last,
            began_at=self._began_at,
            timeout_s=self.timeout_s,
        )


def ended(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def told(last: Mapping[str, str]) -> str:
    """The last line of standard error, else of standard output: most programs say there why they give up."""
    line = (last.get(process.STDERR) or last.get(process.STDOUT, "")).strip()
    return f": {line[:MAX_REASON]}" if line else ""
