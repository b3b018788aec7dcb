"""Which components wait for which: hard dependencies when starting, hard dependents when ending (spec/nucleus.md 2.5)."""

from __future__ import annotations

from collections.abc import Mapping

from nucleus.actors import runner
from nucleus.core import lifecycle
from nucleus.core.component import HARD
from nucleus.core.lifecycle import State

_ENDS_FIRST = (State.STARTING, State.RUNNING, State.STOPPING)  # somebody may depend on it

Runners = Mapping[str, runner.Runner]


def hard_dependents(runners: Runners, name: str) -> list[runner.Runner]:
    return [one for one in runners.values() if one.record.dependencies.get(name) == HARD]


def missing(runners: Runners, one: runner.Runner) -> list[str]:
    """Hard dependencies that are not ready, with their states, in words."""
    hard = [(name, runners.get(name)) for name, kind in one.record.dependencies.items() if kind == HARD]
    return [
        f"{name} ({other.life.state.name if other is not None else 'not here'})"
        for name, other in hard
        if other is None or not lifecycle.is_ready(other.life)
    ]


def waiting_for(runners: Runners, one: runner.Runner) -> str:
    """In words, "" for nothing."""
    if one.life.state is State.INSTALLED and one.life.desired and not one.life.ready:
        return f"hard dependency {', '.join(missing(runners, one))}"
    return one.waiting_for()


def may_end(runners: Runners, *, all_end: bool) -> list[runner.Runner]:
    """Those that shall end, were not told so yet, and that nothing which ends too needs any more."""
    ending = [one for one in runners.values() if (one.removing or all_end) and not one.told_to_end]
    return [one for one in ending if not is_needed(runners, one, all_end=all_end)]


def is_needed(runners: Runners, one: runner.Runner, *, all_end: bool) -> bool:
    """Whether something that ends too depends on it and has not ended yet."""
    if one.life.state not in _ENDS_FIRST:
        return False
    ending = [each for each in hard_dependents(runners, one.record.name) if each.removing or all_end]
    return any(not lifecycle.closed(each.life) for each in ending)
