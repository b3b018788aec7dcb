"""Decides from the answers of a probe whether a component is healthy.

Failures within the start period do not count until the first success: a slow start is no illness. After that,
`failureThreshold` failures in a row are.
"""

from __future__ import annotations

from msgspec import Struct

from nucleus.core import care


class Tally(Struct, frozen=True):
    """What has been seen of a component since it is RUNNING; times are monotonic seconds."""

    began: float
    failures: int = 0
    passed: bool = False


def judge(probe: care.Probe, tally: Tally, failure: str, now: float) -> tuple[Tally, str]:
    """One answer, "" for a good one. Returns the new tally and, if the component is unhealthy, why."""
    if not failure:
        return Tally(tally.began, 0, passed=True), ""
    if not tally.passed and now - tally.began < probe.start_period_s:
        return tally, ""
    counted = Tally(tally.began, tally.failures + 1, passed=tally.passed)
    if counted.failures < probe.failure_threshold:
        return counted, ""
    times = "once" if counted.failures == 1 else f"{counted.failures} times in a row"
    return counted, f"health check {probe} failed {times}: {failure}"


def silence(probe: care.Probe, began: float, heard: float | None, now: float) -> str:
    """The answer of a heartbeat probe: "" if the component was heard within the interval. `heard` None: never."""
    since = heard if heard is not None else began
    if now - since <= probe.interval_s:
        return ""
    return f"no UpdateState RUNNING for {now - since:.1f} s"
