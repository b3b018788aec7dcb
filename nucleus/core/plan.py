"""`plan(actual, desired)`: what has to happen to get from one set of components to another, and why.

Rollback is plan(actual, previous); resume after a crash is computing the plan again; a dry run prints it.
Effects of a change: spec/nucleus.md 2.5, 2.6 (compared by value; the identical document changes nothing).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from nucleus.core import component, graph, overlap
from nucleus.core.lifecycle import Effect


class Step(Struct, frozen=True):
    """One component to change; `reason` is a sentence for people."""

    component: component.Component
    effect: Effect
    reason: str


class Removal(Struct, frozen=True):
    name: str
    reason: str


class Plan(Struct, frozen=True):
    """Steps in dependency order; removals last, dependents first: they run only when the steps have succeeded."""

    steps: tuple[Step, ...]
    removals: tuple[Removal, ...]

    def empty(self) -> bool:
        return not self.removals and all(step.effect is Effect.KEEP for step in self.steps)


def plan(
    actual: Mapping[str, component.Component],
    desired: Mapping[str, component.Component],
    *,
    broken: Collection[str] = (),
) -> Plan:
    """Compares two sets of components by value. `broken` names those that only a reinstallation brings back."""
    order = graph.order({name: [d for d in one.dependencies if d in desired] for name, one in desired.items()})
    steps = _steps(order, actual, desired, broken)
    gone = {name: one for name, one in actual.items() if name not in desired}
    leaving = graph.order({name: [d for d in one.dependencies if d in gone] for name, one in gone.items()})
    return Plan(steps, tuple(Removal(name, "no deployment wants it any more") for name in reversed(leaving)))


def with_dependents(names: Collection[str], components: Mapping[str, component.Component]) -> frozenset[str]:
    """The names and whatever cannot run without one of them (spec/nucleus.md 5.8: nobody waits for these)."""
    found = set(names)
    while True:
        more = {
            name
            for name, one in components.items()
            if name not in found and any(one.dependencies.get(need) == component.HARD for need in found)
        }
        if not more:
            return frozenset(found)
        found |= more


def _steps(
    order: Collection[str],
    actual: Mapping[str, component.Component],
    desired: Mapping[str, component.Component],
    broken: Collection[str],
) -> tuple[Step, ...]:
    steps, stopped = [], set[str]()
    for name in order:
        old, new = actual.get(name), desired[name]
        step = _step(old, new, name in broken)
        changes = step.effect in (Effect.REINSTALL, Effect.RESTART)
        # Also what is BROKEN: the version before it may live on beside it, and if it does not, nothing is lost.
        if changes and old is not None and overlap.applies(old, new, stopped):
            step = Step(new, Effect.OVERLAP, f"{step.reason}; it starts beside the old one (marram.update)")
        elif step.effect is not Effect.KEEP:
            stopped.add(name)
        steps.append(step)
    return tuple(steps)


def _step(old: component.Component | None, new: component.Component, broken: bool) -> Step:
    if old is None:
        return Step(new, Effect.START, "new")
    if old.version != new.version:
        return Step(new, Effect.REINSTALL, f"version {old.version} becomes {new.version}")
    if broken:
        return Step(new, Effect.REINSTALL, "it is BROKEN, and only a reinstallation brings it back")
    if old.lifecycle.get("install") != new.lifecycle.get("install"):
        return Step(new, Effect.REINSTALL, "its Install changed")
    if old.run_with.posix_user != new.run_with.posix_user:
        return Step(new, Effect.REINSTALL, "its user changed")
    changed = sorted(
        phase
        for phase in {*old.lifecycle, *new.lifecycle} - {"install", "shutdown"}
        if old.lifecycle.get(phase) != new.lifecycle.get(phase)
    )
    if changed:
        return Step(new, Effect.RESTART, f"its {', '.join(changed)} changed")
    added = sorted(set(new.dependencies) - set(old.dependencies))
    if added:
        return Step(new, Effect.RESTART, f"it depends on {', '.join(added)} now")
    return Step(new, Effect.KEEP, "unchanged" if old == new else "changed without effect on its processes")
