"""When a new version may start beside the old one, and what a component's health shows meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from nucleus.core import care, component, lifecycle, overlap, plan
from nucleus.core.lifecycle import Effect, Event, Health, Kind, Phase, State

ASKED = {"update": {"overlap": True}}


def one(name: str = "agent", version: str = "1.0.0", **fields: Any) -> component.Component:
    given = {"lifecycle": {"startup": "s"}, "marram": ASKED} | fields
    return component.Component(name=name, version=version, **given)


OLD, NEW = one(), one(version="1.0.1")
CHECK = {"healthCheck": {"heartbeat": True}}
STATE = {"rollbackState": {"paths": ["data"]}}


def effects(actual: list[component.Component], desired: list[component.Component], **more: Any) -> dict[str, Effect]:
    steps = plan.plan({each.name: each for each in actual}, {each.name: each for each in desired}, **more).steps
    return {step.component.name: step.effect for step in steps}


@pytest.mark.parametrize("value", [True, "true", "True"])
def test_care_when_overlap_is_asked_for_then_it_is_read(value: object) -> None:
    assert care.read({"update": {"overlap": value}}).overlap


@pytest.mark.parametrize("value", ["yes", 1, None, []])
def test_care_when_overlap_is_no_truth_value_then_the_key_is_named(value: object) -> None:
    with pytest.raises(care.NotValid, match=r"marram\.update\.overlap must be true or false"):
        care.read({"update": {"overlap": value}})


@pytest.mark.parametrize("new", [NEW, one(lifecycle={"startup": "t"})], ids=["version", "Startup"])
def test_plan_when_both_versions_asked_for_it_then_the_new_one_starts_beside_the_old(new: component.Component) -> None:
    (step,) = plan.plan({"agent": OLD}, {"agent": new}).steps

    assert step.effect is Effect.OVERLAP
    assert "beside the old one" in step.reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (one(marram={}), NEW),
        (OLD, structs.replace(NEW, marram={})),
        (OLD, structs.replace(NEW, marram={"update": {"overlap": "maybe"}})),
        (OLD, structs.replace(NEW, lifecycle={"run": "r"})),
        (one(lifecycle={"run": "r"}), NEW),
        (OLD, structs.replace(NEW, marram=ASKED | CHECK)),
        (OLD, structs.replace(NEW, marram=ASKED | STATE)),
        (one(marram=ASKED | STATE), NEW),
        (OLD, structs.replace(NEW, run_with=component.RunWith(posix_user="other"))),
    ],
    ids=[
        "old did not ask",
        "new does not ask",
        "unreadable",
        "new has Run",
        "old has Run",
        "heartbeat",
        "state",
        "old has state",
        "user",
    ],
)
def test_plan_when_one_of_the_two_cannot_bear_it_then_the_ordinary_order(
    old: component.Component, new: component.Component
) -> None:
    assert effects([old], [new]) == {"agent": Effect.REINSTALL}


def test_plan_when_it_is_broken_then_beside_what_may_live_on() -> None:
    assert effects([OLD], [NEW], broken=["agent"]) == {"agent": Effect.OVERLAP}
    assert effects([OLD], [OLD], broken=["agent"]) == {"agent": Effect.OVERLAP}
    assert effects([structs.replace(OLD, marram={})], [OLD], broken=["agent"]) == {"agent": Effect.REINSTALL}


def test_plan_when_nothing_changed_or_nothing_was_there_then_no_overlap() -> None:
    assert effects([OLD], [OLD]) == {"agent": Effect.KEEP}
    assert effects([], [NEW]) == {"agent": Effect.START}


@pytest.mark.parametrize("kind", ["HARD", "SOFT"])
def test_plan_when_a_dependency_is_stopped_in_the_same_deployment_then_the_ordinary_order(kind: str) -> None:
    base, changed = one("base", marram={}), one("base", "1.0.1", marram={})
    old, new = (structs.replace(each, dependencies={"base": kind}) for each in (OLD, NEW))

    assert effects([base, old], [changed, new]) == {"base": Effect.REINSTALL, "agent": Effect.REINSTALL}
    assert effects([base, old], [base, new]) == {"base": Effect.KEEP, "agent": Effect.OVERLAP}


def test_plan_when_the_dependency_itself_stays_beside_then_both_do() -> None:
    old, new = (one("model", each, dependencies={"agent": "HARD"}) for each in ("1.0.0", "1.0.1"))

    assert effects([OLD, old], [NEW, new]) == {"agent": Effect.OVERLAP, "model": Effect.OVERLAP}


def test_begin_when_anything_is_under_way_then_not() -> None:
    running = lifecycle.Life(state=State.RUNNING)

    assert overlap.can_begin(running)
    assert not overlap.can_begin(structs.replace(running, desired=(State.FINISHED,)))
    assert not overlap.can_begin(structs.replace(running, doing=Phase.SHUTDOWN))
    assert not overlap.can_begin(structs.replace(running, state=State.FINISHED))


def test_report_when_the_successor_comes_up_then_it_is_its_own() -> None:
    report, end = Event(Kind.REPORTED_RUNNING), Event(Kind.STARTUP_DONE)

    assert overlap.is_successors(report, lifecycle.Life(state=State.STARTING))
    assert not overlap.is_successors(report, lifecycle.Life(state=State.BROKEN))
    assert not overlap.is_successors(end, lifecycle.Life(state=State.STARTING))


def test_process_name_when_one_follows_the_other_then_they_differ() -> None:
    first = overlap.process_name("agent", "agent")

    assert first != "agent"
    assert overlap.process_name("agent", first) == "agent"


MAIN = Health(name="agent", version="1.0.1", state=State.RUNNING, settled=True, pids=(1,), generation=3)


def test_health_when_the_successor_starts_then_running_and_not_settled_and_it_says_what_is_waited_for() -> None:
    other = Health("agent", "1.0.1", State.STARTING, False, generation=4, pids=(2,), waiting_for="Startup script, 1 s")

    shown = overlap.health(MAIN, other)

    assert (shown.state, shown.settled, shown.generation, shown.pids) == (State.RUNNING, False, 4, (1, 2))
    assert shown.waiting_for == "version 1.0.1 beside the old one: Startup script, 1 s"


def test_health_when_the_successor_is_broken_then_so_is_the_component_and_the_old_one_is_told_of() -> None:
    broken = Health("agent", "1.0.1", State.BROKEN, True, "STARTUP_ERROR", "it failed", 7.0, 4, 3)

    shown = overlap.health(MAIN, broken)

    assert (shown.state, shown.settled, shown.status_code, shown.failures) == (State.BROKEN, True, "STARTUP_ERROR", 3)
    assert shown.reason == "it failed (the version before it still runs)"
    assert shown.pids == (1,)


def test_health_when_the_old_one_is_ended_then_not_settled() -> None:
    shown = overlap.leaving_health(MAIN, Health("agent", "1.0.0", State.STOPPING, False, pids=(2,)))

    assert (shown.state, shown.settled, shown.pids) == (State.RUNNING, False, (1, 2))
    assert "STOPPING" in shown.waiting_for
