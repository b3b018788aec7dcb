"""`judge(...)`: is a deployment done, waiting (for what), or failed (why)?

The watch window (issue "The device core", b): after every component has settled, a changed one that dies within it fails
the deployment. There is a deadline (design.md decision 16); the original waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nucleus.core import component
from nucleus.core.lifecycle import Health, State

WATCH_RUN_S = 5.0  # when a changed component has a process that stays
WATCH_HEALTH_S = 10.0  # when a changed component has a health check
LOOK_AGAIN_S = 60.0


class Expectation(Struct, frozen=True, kw_only=True):
    """What a deployment waits for; times are monotonic seconds, `deadline_at` 0 means none.

    `generations` are the supervisor's answers to `adopt`. `excused` were BROKEN before and did not change: nobody waits
    for them (spec/nucleus.md 5.8).
    """

    generations: dict[str, int]
    changed: frozenset[str]
    excused: frozenset[str] = frozenset()
    deadline_at: float
    watch_s: float


class Watch(Struct, frozen=True):
    """Begun when every component had settled: until when, and how often each changed one had failed by then."""

    until: float
    failures: dict[str, int]


class Waiting(Struct, frozen=True):
    """`reason` says for what; hand `watch` to the next judge, at the latest after `look_again_s`."""

    reason: str
    watch: Watch | None
    look_again_s: float


class Done(Struct, frozen=True):
    pass


class Failed(Struct, frozen=True):
    """`stack` are codes below DEPLOYMENT_FAILURE, `cause` is one readable line."""

    stack: tuple[str, ...]
    cause: str


Verdict = Waiting | Done | Failed


def judge(expected: Expectation, health: Mapping[str, Health], watch: Watch | None, now: float) -> Verdict:
    """Decides from the components' health; `watch` is None or what the last Waiting carried."""
    failed = _broken(expected, health) or (_died(expected, watch, health) if watch is not None else None)
    if failed is not None:
        return failed
    pending = [name for name in sorted(expected.generations) if not _settled(expected, name, health.get(name))]
    if pending:
        return _pending(expected, "; ".join(_waiting(name, health.get(name)) for name in pending), watch, now)
    if watch is None:
        failures = {name: health[name].failures for name in expected.changed if name in health}
        watch = Watch(now + expected.watch_s, failures)
    # One-shots that have ended well need no watching.
    ended = all(health[name].state is State.FINISHED for name in expected.changed if name in health)
    if now < watch.until and not ended:
        reason = f"watching {', '.join(sorted(expected.changed))} for {expected.watch_s:g} s"
        return Waiting(reason, watch, watch.until - now)
    return Done()


def watch_s(changed: Mapping[str, component.Component], asked_s: float, *, local: bool) -> float:
    """The watch window: what the document asks for, else 0 for local deployments, 10 s when something changed has a health
    check, 5 s when it has Run."""
    if asked_s >= 0:
        return asked_s
    if local:
        return 0.0
    if any((one.marram or {}).get("healthCheck") for one in changed.values()):
        return WATCH_HEALTH_S
    return WATCH_RUN_S if any(one.lifecycle.get("run") for one in changed.values()) else 0.0


def _pending(expected: Expectation, reason: str, watch: Watch | None, now: float) -> Verdict:
    if not expected.deadline_at:
        return Waiting(reason, watch, LOOK_AGAIN_S)
    if now >= expected.deadline_at:
        return Failed(("COMPONENT_UPDATE_ERROR",), f"not finished by the deployment's deadline; waiting for {reason}")
    return Waiting(reason, watch, min(expected.deadline_at - now, LOOK_AGAIN_S))


def _broken(expected: Expectation, health: Mapping[str, Health]) -> Failed | None:
    for name, generation in sorted(expected.generations.items()):
        one = health.get(name)
        if one is None or one.generation < generation or name in expected.excused:
            continue
        if one.state is State.BROKEN:
            return Failed(
                ("COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN"), f"{name} {one.version} is BROKEN: {_why(one)}"
            )
    return None


def _died(expected: Expectation, watch: Watch, health: Mapping[str, Health]) -> Failed | None:
    for name in sorted(expected.changed):
        one = health.get(name)
        if one is not None and one.failures > watch.failures.get(name, 0):
            cause = f"{name} {one.version} died within the watch window of {expected.watch_s:g} s: {_why(one)}"
            return Failed(("COMPONENT_UPDATE_ERROR",), cause)
    return None


def _settled(expected: Expectation, name: str, one: Health | None) -> bool:
    if name in expected.excused:
        return True
    return one is not None and one.generation >= expected.generations[name] and one.settled


def _waiting(name: str, one: Health | None) -> str:
    if one is None:
        return f"{name}: not yet under supervision"
    return f"{name} {one.state.name}" + (f": {one.waiting_for}" if one.waiting_for else "")


def _why(one: Health) -> str:
    code = one.status_code if one.status_code != "NONE" else ""
    return " ".join(part for part in (code, one.reason) if part)
