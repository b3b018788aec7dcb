"""Metrics that components report (PutComponentMetric), summed up until the telemetry of an interval takes them.

Bounded: a component that makes up names must not make the daemon grow. Nothing is written: what a crash loses is at most
one interval's, like all telemetry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from nucleus.core import telemetry

COMPONENTS = 50
NAMES = 100  # of one component


class Full(Exception):  # noqa: N818  an answer to the caller
    """There is no room for another name; the message says why."""


class _Sum(Struct):
    unit: str
    total: float = 0.0
    count: int = 0


class ComponentMetrics:
    """What all components have reported since it was last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, _Sum]] = {}

    def put(self, component: str, metrics: Iterable[tuple[str, str, float]]) -> None:
        """Adds (name, unit, value) triples, all of them or, raising Full, none."""
        given = list(metrics)
        known = self._sums.get(component, {})
        if not known and len(self._sums) >= COMPONENTS:
            raise Full(f"more than {COMPONENTS} components report metrics")
        if len(known.keys() | {name for name, _, _ in given}) > NAMES:
            raise Full(f"{component} reports more than {NAMES} different metrics")
        sums = self._sums.setdefault(component, known)
        for name, unit, value in given:
            one = sums.setdefault(name, _Sum(unit))
            one.unit, one.total, one.count = unit, one.total + value, one.count + 1

    def take(self, at_ms: int) -> list[telemetry.Aggregate]:
        """One aggregate for each component, and an empty beginning."""
        sums, self._sums = self._sums, {}
        return [
            {"TS": at_ms, "NS": component, "M": [_told(name, one) for name, one in sorted(found.items())]}
            for component, found in sorted(sums.items())
        ]


def _told(name: str, one: _Sum) -> dict[str, Any]:
    """Counts add up; everything else is an average."""
    word, value = ("Sum", one.total) if one.unit == "COUNT" else ("Average", one.total / one.count)
    unit = "".join(part.capitalize() for part in one.unit.split("_"))
    return {"N": name, word: round(value, 3), "U": unit}
