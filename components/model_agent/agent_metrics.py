"""Figures of each alias on a local topic and, less often, in the cloud (agent_report.py, kind `metrics`).

The configuration `metrics` of the agent's recipe, as JSON in MARRAM_METRICS; 0 seconds is never:

    {"localSeconds": 10, "cloudSeconds": 300}

A message has totals since the agent started (`startedAt`) and what was added since the last message on the same topic; both
have the same keys. Totals start again with each agent; a sum over `interval` of all messages counts every request once,
but for those between the last message and the end of the agent.

    {"component", "version", "digest", "state", "previous", "heldBy",   what answers (agent_aliases.listed)
     "startedAt", "waiting",                                            requests that wait for a core now
     "memory": {"modelBytes", "agentBytes"},                            measured at load; resident set of the whole agent
     "total": {"count", "errors", "refused", "computedMs", "queuedMs", "latencyMs": {"0.1": n, ..., "5000": n, "more": n}},
     "interval": {"seconds", the same}, "p50Ms", "p99Ms",               upper bounds, of the total
     "process": {"state", "pid", "crashes", "reason"},                  of a model that runs in one of its own
     "captures": {...}, "uploads": {...}, "drift": {...},               where the model's settings ask for them
     "reports": {"sent", "dropped", "refused", "waiting"}}
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import agent_aliases
import agent_engine
import agent_report
import agent_settings

LOCAL, CLOUD = "local", "cloud"
LOCAL_S, CLOUD_S = 10.0, 300.0
_LONGEST_S = 7 * 86400.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Source(Protocol):
    """Somebody who has figures of an alias; empty when there is nothing to tell."""

    def figures(self, alias: str) -> dict[str, Any]:
        """Short JSON."""


@dataclass(frozen=True)
class Every:
    """Seconds between two messages for each destination; 0 is never."""

    local_s: float = LOCAL_S
    cloud_s: float = CLOUD_S


class Metrics:
    """A service. `sources` by the key that their figures get."""

    def __init__(
        self,
        aliases: agent_aliases.Aliases,
        engine: agent_engine.Engine,
        reporter: agent_report.Publisher,
        sources: Mapping[str, Source],
        every: Every = Every(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aliases = aliases
        self._engine = engine
        self._reporter = reporter
        self._sources = sources
        self._clock = clock
        self._started_at = round(time.time(), 3)
        now = clock()
        self._every_s = {LOCAL: every.local_s, CLOUD: every.cloud_s}
        self._last_at = dict.fromkeys(self._every_s, now)
        self._last: dict[str, dict[str, dict[str, Any]]] = {LOCAL: {}, CLOUD: {}}  # totals, by alias

    def tick(self) -> list[str]:
        """Reports to the destinations that are due."""
        now = self._clock()
        for destination, every_s in self._every_s.items():
            if every_s and now - self._last_at[destination] >= every_s:
                self._report(destination, now)
        return []

    def close(self) -> None:
        """The last figures, so that what was counted is told."""
        for destination, every_s in self._every_s.items():
            if every_s:
                self._report(destination, self._clock())

    def _report(self, destination: str, now: float) -> None:
        seconds, self._last_at[destination] = now - self._last_at[destination], now
        before, self._last[destination] = self._last[destination], {}
        asked, agent_bytes = self._engine.figures(), resident_bytes()
        for row in self._aliases.listed():
            alias = row["alias"]
            figures = asked.get(alias)
            total = totals(figures)
            self._last[destination][alias] = total
            fields = {
                **self._who(row),
                "startedAt": self._started_at,
                "waiting": figures["waiting"] if figures else 0,
                "memory": {**self._memory(alias), "agentBytes": agent_bytes},
                "total": total,
                "interval": {"seconds": round(seconds, 3), **since(before.get(alias), total)},
                "p50Ms": figures["p50_ms"] if figures else 0.0,
                "p99Ms": figures["p99_ms"] if figures else 0.0,
                **{key: found for key, source in self._sources.items() if (found := source.figures(alias))},
                **({"process": row["process"]} if "process" in row else {}),
                "reports": self._reporter.counts(),
            }
            local = destination == LOCAL
            self._reporter.publish(alias, agent_report.METRICS, fields, local=local, cloud=not local)

    def _who(self, row: Mapping[str, Any]) -> dict[str, Any]:
        serving = self._aliases.serving(row["alias"])
        return {
            "component": serving.component if serving else row["component"],
            "version": serving.version if serving else "",
            "digest": serving.digest if serving else "",
            "state": row["state"],
            "previous": row["previous"],
            "heldBy": row["held_by"],
        }

    def _memory(self, alias: str) -> dict[str, int]:
        serving = self._aliases.serving(alias)
        return {"modelBytes": serving.memory_bytes if serving else 0}


def read(given: Mapping[str, Any]) -> Every:
    """Raises agent_settings.SettingsError."""
    found = []
    for key, default in (("localSeconds", LOCAL_S), ("cloudSeconds", CLOUD_S)):
        value = given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_S:
            raise agent_settings.SettingsError(f"metrics: {key} is {value!r}, it must be 0 (never) or seconds")
        found.append(float(value))
    return Every(*found)


def totals(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """The engine's figures of one alias as they are told; None for one that was never asked."""
    if figures is None:
        figures = {"count": 0, "errors": 0, "refused": 0, "computed_s": 0.0, "queued_s": 0.0}
        figures["latency_ms"] = dict.fromkeys((*map(str, agent_engine.LATENCY_BOUNDS_MS), "more"), 0)
    return {
        "count": figures["count"],
        "errors": figures["errors"],
        "refused": figures["refused"],
        "computedMs": round(figures["computed_s"] * 1000, 3),
        "queuedMs": round(figures["queued_s"] * 1000, 3),
        "latencyMs": dict(figures["latency_ms"]),
    }


def since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """What was added; all of it when counting began anew in between (the alias was emptied and taken again)."""
    if before is None or before["count"] > now["count"] or before["refused"] > now["refused"]:
        return dict(now)
    added: dict[str, Any] = {key: round(now[key] - before[key], 3) for key in now if key != "latencyMs"}
    latency = {key: count - before["latencyMs"].get(key, 0) for key, count in now["latencyMs"].items()}
    return {**added, "latencyMs": latency}


def resident_bytes() -> int:
    """The resident set of this process (Linux, /proc/self/statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
