"""plan(actual, desired): which change means what, in which order, removals last."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import component, plan
from nucleus.core.lifecycle import Effect


def one(name: str = "a", version: str = "1.0.0", **fields: Any) -> component.Component:
    return component.Component(name=name, version=version, **fields)


OLD = one(lifecycle={"install": "i", "run": "r", "shutdown": "s"}, dependencies={"x": "HARD"})


@pytest.mark.parametrize(
    ("new", "effect", "reason"),
    [
        (OLD, Effect.KEEP, "unchanged"),
        (one(version="1.0.1", lifecycle=OLD.lifecycle), Effect.REINSTALL, "version 1.0.0 becomes 1.0.1"),
        (one(lifecycle={**OLD.lifecycle, "install": "j"}), Effect.REINSTALL, "its Install changed"),
        (one(lifecycle={**OLD.lifecycle, "run": "q"}), Effect.RESTART, "its run changed"),
        (one(lifecycle={**OLD.lifecycle, "setenv": {"A": "1"}}), Effect.RESTART, "its setenv changed"),
        (one(lifecycle={**OLD.lifecycle, "shutdown": "t"}), Effect.KEEP, "changed without effect on its processes"),
        (one(lifecycle=OLD.lifecycle, dependencies={"x": "SOFT"}), Effect.KEEP, "changed without effect"),
        (one(lifecycle=OLD.lifecycle, dependencies={}), Effect.KEEP, "changed without effect"),
        (one(lifecycle=OLD.lifecycle, dependencies={"x": "HARD", "y": "SOFT"}), Effect.RESTART, "it depends on y now"),
        (
            one(lifecycle=OLD.lifecycle, run_with=component.RunWith(posix_user="u")),
            Effect.REINSTALL,
            "its user changed",
        ),
    ],
)
def test_plan_when_one_thing_changes_then_its_effect_and_reason(
    new: component.Component, effect: Effect, reason: str
) -> None:
    """spec/nucleus.md 2.5 and 2.6, row by row."""
    desired = {"a": new} | {name: one(name) for name in new.dependencies}
    actual = {"a": OLD} | {name: one(name) for name in new.dependencies}

    steps = {step.component.name: step for step in plan.plan(actual, desired).steps}

    assert steps["a"].effect is effect
    assert steps["a"].reason.startswith(reason)


def test_plan_when_broken_then_reinstalled_though_unchanged() -> None:
    (step,) = plan.plan({"a": OLD}, {"a": OLD}, broken=["a"]).steps

    assert step.effect is Effect.REINSTALL


def test_plan_when_dependencies_then_they_come_first_and_leave_last() -> None:
    chain = {
        "app": one("app", dependencies={"agent": "SOFT"}),
        "agent": one("agent"),
        "model": one("model", dependencies={"agent": "HARD"}),
    }

    coming = [step.component.name for step in plan.plan({}, chain).steps]
    going = [removal.name for removal in plan.plan(chain, {}).removals]

    assert coming.index("agent") < min(coming.index("app"), coming.index("model"))
    assert going.index("agent") == 2


def test_plan_when_nothing_differs_then_empty() -> None:
    assert plan.plan({"a": OLD}, {"a": OLD}).empty()
    assert not plan.plan({"a": OLD}, {}).empty()
