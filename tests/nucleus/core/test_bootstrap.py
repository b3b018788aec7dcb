"""What a deployment owes between preparation and activation."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import bootstrap
from nucleus.core.component import Component

A, B = "com.example.A", "com.example.B"


def component(name: str, version: str = "1.0.0", step: Any = "true", **more: Any) -> Component:
    return Component(name=name, version=version, lifecycle={"bootstrap": step} if step else {}, **more)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (None, component(A, step=None), ""),
        (None, component(A, step={"Script": " "}), ""),
        (None, component(A), "new"),
        (component(A), component(A), ""),
        (component(A), component(A, "1.1.0"), "version 1.0.0 becomes 1.1.0"),
        (component(A), component(A, step="false"), "its Bootstrap changed"),
        (component(A, step={"Script": "x"}), component(A, step={"script": "x"}), ""),
        (component(A, step={"Script": "rm -r"}), component(A, step={"Script": "rm -R"}), "its Bootstrap changed"),
        (component(A, step=None), component(A), "its Bootstrap changed"),
    ],
)
def test_needed_when_component_changes_then_there_is_a_reason(
    old: Component | None, new: Component, reason: str
) -> None:
    assert bootstrap.needed(old, new) == reason


def test_forward_when_several_then_dependencies_first() -> None:
    target = {A: component(A, dependencies={B: "HARD"}), B: component(B)}

    assert [task.component.name for task in bootstrap.forward({}, target)] == [B, A]


def test_pending_when_one_has_returned_then_only_the_other_is_left() -> None:
    tasks = bootstrap.forward({}, {A: component(A), B: component(B)})
    facts = {A: bootstrap.Fact("1.0.0", 1, 100), B: bootstrap.Fact("1.0.0", 1)}

    assert [task.component.name for task in bootstrap.pending(tasks, facts)] == [B]
    assert [task.component.name for task in bootstrap.pending(tasks, {A: bootstrap.Fact("0.9.0", 1, 0)})] == [A, B]


def test_backward_when_some_ask_for_it_then_those_that_the_deployment_changed() -> None:
    again = {"Script": "true", "BootstrapOnRollback": "true"}
    previous = {A: component(A, step=again), B: component(B), "c": component("c", step=again)}

    tasks = bootstrap.backward(previous, {A: "2.0.0", B: "2.0.0", "c": "1.0.0"}, {B})

    assert [task.component.name for task in tasks] == [A]
    assert [task.component.name for task in bootstrap.backward(previous, {"c": "1.0.0"}, {"c"})] == ["c"]


@pytest.mark.parametrize(
    ("codes", "restart", "owed"),
    [((), False, 0), ((0, 0), False, 0), ((0, 100), False, 100), ((100, 101, 0), False, 101), ((0,), True, 100)],
)
def test_owed_when_steps_have_returned_then_the_greatest_wish(codes: tuple[int, ...], restart: bool, owed: int) -> None:
    facts = {str(number): bootstrap.Fact("1", 1, code) for number, code in enumerate(codes)}

    assert bootstrap.owed(facts, restart=restart) == owed


@pytest.mark.parametrize(
    ("code", "asked", "left"),
    [
        (0, None, 0),
        (100, None, 100),
        (100, bootstrap.Asked(100, "this", "boot"), 100),
        (100, bootstrap.Asked(100, "before", "boot"), 0),
        (101, bootstrap.Asked(100, "before", "boot"), 101),
        (101, bootstrap.Asked(101, "before", "earlier"), 0),
        (101, bootstrap.Asked(101, "before", "boot"), 101),
        (101, bootstrap.Asked(101, "before", "boot", 2), 0),
        (100, bootstrap.Asked(101, "before", "earlier"), 0),
    ],
)
def test_still_owed_when_asked_before_then_not_for_ever(code: int, asked: bootstrap.Asked | None, left: int) -> None:
    assert bootstrap.still_owed(code, asked, launch="this", boot="boot") == left


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({}, {"logging": {"level": "DEBUG"}, "mqtt": {"keepAliveTimeoutMs": 1}}, ()),
        ({}, {"runWithDefault": {"posixUser": "ggc_user"}}, ("runWithDefault.posixUser",)),
        ({"RunWithDefault": {"PosixUser": "u"}}, {"runWithDefault": {"posixUser": "u"}}, ()),
        ({"fipsMode": False}, {}, ()),
        ({}, {"networkProxy": {"proxy": {"url": "http://p"}}}, ("networkProxy",)),
        (
            {"mqtt": {"version": "mqtt5"}},
            {"mqtt": {"spooler": {"storageType": "Disk"}}},
            ("mqtt.version",),  # the spool changes its place while everything runs
        ),
    ],
)
def test_restart_keys_when_configuration_changes_then_only_those_that_need_it(
    before: dict[str, Any], after: dict[str, Any], keys: tuple[str, ...]
) -> None:
    assert bootstrap.restart_keys(before, after) == keys


def test_begun_when_the_nucleus_went_down_with_it_then_it_is_counted() -> None:
    fact = bootstrap.begun({}, component(A))
    again = bootstrap.begun({A: fact}, component(A))

    assert (fact.starts, again.starts) == (1, 2)
    assert bootstrap.begun({A: again}, component(A, "2.0.0")).starts == 1
