"""Asks a component how it is: by its own script, over HTTP or TCP, or by waiting for its heartbeat.

What the answers mean is decided in core/health.py. A probe is never run twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from nucleus.core import care, health

MAX_STATUS_BYTES = 4096  # of an HTTP answer's first line
RunScript = Callable[[str, float], Awaitable[str]]  # script, seconds; "" or why it failed


class Prober:
    """Of one component. `run` runs a script as the component's user; `is_paused` while frozen: nobody asks then."""

    def __init__(self, run: RunScript, is_paused: Callable[[], bool]) -> None:
        self._run = run
        self._is_paused = is_paused
        self._heard: float | None = None
        self.last = ""  # why the last answer was bad

    def beat(self) -> None:
        """The component has told that it is RUNNING."""
        self._heard = time.monotonic()

    async def until_ready(self, probe: care.Probe) -> str:
        """Returns "" as soon as an answer is good, else why not, at the deadline."""
        self.last = "not asked yet"
        try:
            async with asyncio.timeout(probe.deadline_s):
                while True:
                    self.last = await self._ask(probe)
                    if not self.last:
                        return ""
                    await asyncio.sleep(probe.interval_s)
        except TimeoutError:
            return f"readiness check {probe} had no success within {probe.deadline_s:g} s: {self.last}"

    async def until_unhealthy(self, probe: care.Probe) -> str:
        """Asks from now on; returns why it is unhealthy. No deadline: it lasts as long as the component runs well."""
        tally = health.Tally(time.monotonic())
        self._heard = None
        while True:
            await asyncio.sleep(probe.interval_s)
            if self._is_paused():
                tally = health.Tally(time.monotonic())
                self._heard = None
                continue
            failure = self._silence(probe, tally) if probe.kind == care.HEARTBEAT else await self._ask(probe)
            tally, reason = health.judge(probe, tally, "" if self._is_paused() else failure, time.monotonic())
            if reason:
                return reason

    def _silence(self, probe: care.Probe, tally: health.Tally) -> str:
        return health.silence(probe, tally.began, self._heard, time.monotonic())

    async def _ask(self, probe: care.Probe) -> str:
        if probe.kind == care.EXEC:
            return await self._run(probe.target, probe.timeout_s)
        try:
            async with asyncio.timeout(probe.timeout_s):
                return await (_http if probe.kind == care.HTTP else _tcp)(probe.target)
        except TimeoutError:
            return f"no answer within {probe.timeout_s:g} s"
        except (OSError, ValueError) as error:
            return str(error)


async def _tcp(target: str) -> str:
    parts = urlsplit(f"tcp://{target}")
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await _close(writer)
    return ""


async def _http(target: str) -> str:
    """Good are the answers 200 to 399."""
    parts = urlsplit(target)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=MAX_STATUS_BYTES)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").strip()
    finally:
        await _close(writer)
    fields = line.split(maxsplit=2)
    if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdecimal():
        return f"the answer {line[:100]!r} is no HTTP"
    return "" if 200 <= int(fields[1]) < 400 else f"it answered {' '.join(fields[1:])[:100]}"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return  # the other side was faster
