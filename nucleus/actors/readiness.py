"""Which components wait for which: hard dependencies when starting, hard dependents when ending (spec/nucleus.md 2.5)."""

from __future__ import annotations

from collections.abc import Mapping

from nucleus.actors import runner
from nucleus.core import lifecycle, overlap
from nucleus.core.component import HARD
from nucleus.core.lifecycle import State

_ENDS_FIRST = (State.STARTING, State.RUNNING, State.STOPPING)  # somebody may depend on it

Runners = Mapping[str, runner.Runner]


def hard_dependents(runners: Runners, name: str) -> list[runner.Runner]:
    return [one for one in runners.values() if one.record.dependencies.get(name) == HARD]


def missing(runners: Runners, one: runner.Runner) -> list[str]:
    """Hard dependencies that are not ready, with their states, in words."""
    hard = [(name, runners.get(name)) for name, kind in one.record.dependencies.items() if kind == HARD]
    found = [
        f"{name} ({other.life.state.name if other is not None else 'not here'})"
        for name, other in hard
        if other is None or not lifecycle.is_ready(other.life)
    ]
    if is_up(one.life):
        return found
    # What runs goes on with the old version of a dependency; what starts is meant for the new one, unless that has failed.
    news = [name for name, _ in hard if (new := runners.get(name + overlap.SUFFIX)) is not None and _comes_up(new)]
    other = runners.get(one.record.name + overlap.SUFFIX)
    itself = ["itself (its other process has not ended)"] if other not in (None, one) and _is_main(runners, one) else []
    return found + [f"{name} (an update beside the old version)" for name in news] + itself


def _comes_up(beside: runner.Runner) -> bool:
    return is_successor(beside) and beside.life.state is not State.BROKEN


def _is_main(runners: Runners, one: runner.Runner) -> bool:
    return runners.get(one.record.name) is one


def is_up(life: lifecycle.Life) -> bool:
    return life.state in (State.STARTING, State.RUNNING)


def is_successor(beside: runner.Runner) -> bool:
    """Of the second one of a name: whether it is to take its place; else it is ending."""
    return not beside.told_to_end


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
    if not all_end and runners.get(one.record.name + overlap.SUFFIX) not in (None, one):
        return True
    if one.life.state not in _ENDS_FIRST:
        return False
    ending = [each for each in hard_dependents(runners, one.record.name) if each.removing or all_end]
    return any(not lifecycle.closed(each.life) for each in ending)
