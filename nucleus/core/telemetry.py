"""What the nucleus measures about the machine and its components, in the shape of the field (spec/nucleus.md 6.2).

Samples of one interval become two aggregates (averages), aggregates of a day one message; a message too large is several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from nucleus.core.lifecycle import State

SCHEMA = "2022-06-30"
SYSTEM, COMPONENTS = "SystemMetrics", "GreengrassComponents"
UNITS = {"CpuUsage": "Percent", "TotalNumberOfFDs": "Count", "SystemMemUsage": "Megabytes"}
COUNTED = ("Starting", "Installed", "Stateless", "Stopping", "Broken", "Running", "Errored", "New", "Finished")
AGGREGATE_S, PUBLISH_S = 3600.0, 86_400.0  # defaults, and the least that is taken
AGGREGATES_AT_ONCE = 100  # in one message: well below the broker's 128 KiB
AGGREGATES_KEPT = 2 * 24 * 7  # a week without a cloud; the oldest go

Aggregate = dict[str, Any]


class Settings(Struct, frozen=True):
    """The nucleus's configuration key `telemetry`."""

    enabled: bool = True
    aggregate_s: float = AGGREGATE_S
    publish_s: float = PUBLISH_S


def read(nucleus: Mapping[str, Any], least: Settings | None = None) -> Settings:
    """Reads the settings leniently; intervals below `least` count as `least`.

    The documentation says `…IntervalSeconds`, the original's code reads `…IntervalSec`: both are taken, the documented first.
    """
    bounds = least or Settings()
    found = nucleus.get("telemetry")
    given = {key.lower(): value for key, value in found.items()} if isinstance(found, Mapping) else {}
    return Settings(
        enabled=str(given.get("enabled", True)).lower() != "false",
        aggregate_s=_interval(given, "periodicaggregatemetricsinterval", bounds.aggregate_s),
        publish_s=_interval(given, "periodicpublishmetricsinterval", bounds.publish_s),
    )


def counts(states: Iterable[State]) -> dict[str, float]:
    """How many components are in each state, under the names of the field."""
    found = dict.fromkeys(COUNTED, 0.0)
    for state in states:
        found[state.name.capitalize()] = found.get(state.name.capitalize(), 0.0) + 1
    return {f"NumberOfComponents{name}": number for name, number in found.items()}


def aggregates(
    at_ms: int, system: Sequence[Mapping[str, float]], components: Sequence[Mapping[str, float]]
) -> list[Aggregate]:
    """The averages of one interval that ends at `at_ms`; nothing of no samples."""
    found = ((SYSTEM, system), (COMPONENTS, components))
    return [{"TS": at_ms, "NS": space, "M": _averages(samples)} for space, samples in found if samples]


def messages(held: Sequence[Aggregate]) -> list[dict[str, Any]]:
    """The payloads that tell all aggregates, oldest first."""
    starts = range(0, len(held), AGGREGATES_AT_ONCE)
    return [{"Schema": SCHEMA, "ADP": list(held[start : start + AGGREGATES_AT_ONCE])} for start in starts]


def is_due(now_ms: int, last_ms: int, interval_s: float) -> bool:
    """Whether an interval has passed since `last_ms`, or the clock was set back behind it."""
    return not 0 <= now_ms - last_ms < interval_s * 1000


def _averages(samples: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    names = sorted({name for sample in samples for name in sample})
    found = []
    for name in names:
        values = [sample[name] for sample in samples if name in sample]
        average = round(sum(values) / len(values), 3)
        found.append({"N": name, "Average": average, "U": UNITS.get(name, "Count")})
    return found


def _interval(given: Mapping[str, Any], name: str, least_s: float) -> float:
    for key in (f"{name}seconds", f"{name}sec"):
        try:
            value = float(given[key])
        except (KeyError, TypeError, ValueError):
            continue
        return max(value, least_s) if value == value else least_s  # nan is no interval
    return least_s
