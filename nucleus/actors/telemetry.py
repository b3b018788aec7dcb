"""Measures the machine and the components, and tells the cloud once a day (spec/nucleus.md 6.2).

What is not told yet lies in `telemetry/aggregates.json`, so that a restart loses at most one interval. Nothing of it is
worth ending the daemon or filling a disk for: what cannot be written is kept in memory, what is older than a week goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil
from msgspec import Struct

from nucleus.core import errors, telemetry
from nucleus.core.lifecycle import Health
from nucleus.host import files, logs

SAMPLE_S = 60.0
TOPIC = "$aws/things/{}/greengrass/health/json"
OPEN_FILES = Path("/proc/sys/fs/file-nr")  # open, unused, limit: of the whole machine
MEGABYTE = 1024 * 1024


class Publisher(Protocol):
    async def publish(self, topic: str, payload: bytes, qos: int = 1, /) -> None: ...


class Held(Struct):
    """What is on the disk; times in ms of the wall clock."""

    published_ms: int
    aggregates: list[telemetry.Aggregate] = []


class Telemetry:
    """`settings` gives the configuration now in force; `reported` takes what components have reported (its time in ms)."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        thing: str,
        folder: Path,
        health: Callable[[], Mapping[str, Health]],
        settings: Callable[[], telemetry.Settings],
        log: logs.Log,
        sample_s: float = SAMPLE_S,
        reported: Callable[[int], list[telemetry.Aggregate]] = lambda at_ms: [],
    ) -> None:
        self._reported = reported
        self._publisher = publisher
        self._topic = TOPIC.format(thing)
        self._path = folder / "aggregates.json"
        self._health = health
        self._settings = settings
        self._log = log
        self._sample_s = sample_s
        self._system: list[dict[str, float]] = []
        self._components: list[dict[str, float]] = []

    async def run(self) -> None:
        """Samples, aggregates and publishes until cancelled; what became due while it was off is told at once."""
        held = self._load()
        await self._publish_if_due(held, self._settings())
        measure()  # the first CPU usage has no time to refer to
        since = time.monotonic()
        while True:
            await asyncio.sleep(self._sample_s)
            settings = self._settings()
            if not settings.enabled:
                self._system, self._components = [], []
                continue
            self._system.append(measure())
            self._components.append(telemetry.counts(one.state for one in self._health().values()))
            if time.monotonic() - since >= settings.aggregate_s:
                since = time.monotonic()
                self._aggregate(held)
            await self._publish_if_due(held, settings)

    async def _publish_if_due(self, held: Held, settings: telemetry.Settings) -> None:
        if settings.enabled and telemetry.is_due(_now_ms(), held.published_ms, settings.publish_s):
            await self._publish(held)

    def _aggregate(self, held: Held) -> None:
        now = _now_ms()
        held.aggregates += telemetry.aggregates(now, self._system, self._components) + self._reported(now)
        del held.aggregates[: -telemetry.AGGREGATES_KEPT]
        self._system, self._components = [], []
        self._save(held)

    async def _publish(self, held: Held) -> None:
        """What the spool has taken is told; on a refusal everything is kept for the next sample."""
        told = list(held.aggregates)
        if not told:
            return
        try:
            for message in telemetry.messages(told):
                await self._publisher.publish(self._topic, msgspec.json.encode(message), 1)
        except errors.NucleusError as error:
            self._log.warning("telemetry.not_published", why=error.detail)
            return
        del held.aggregates[: len(told)]
        held.published_ms = _now_ms()
        self._log.info("telemetry.published", aggregates=len(told))
        self._save(held)

    def _load(self) -> Held:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Held)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._log.warning("telemetry.lost", why=f"cannot read {self._path}: {error}")
        return Held(_now_ms())

    def _save(self, held: Held) -> None:
        try:
            files.make_directory(self._path.parent, 0o700)
            files.write_durably(self._path, msgspec.json.encode(held))
        except errors.NucleusError as error:
            self._log.warning("telemetry.not_kept", why=error.detail)


def measure() -> dict[str, float]:
    """The machine now: CPU since the last call, memory in use, open files; what it does not offer is left out."""
    memory = psutil.virtual_memory()
    found: dict[str, Any] = {
        "CpuUsage": psutil.cpu_percent(None),
        "SystemMemUsage": (memory.total - memory.available) / MEGABYTE,
    }
    with contextlib.suppress(OSError, ValueError, IndexError):
        found["TotalNumberOfFDs"] = float(OPEN_FILES.read_text().split()[0])
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
