"""Reading one script of a lifecycle."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import component, scripts
from nucleus.core.lifecycle import Phase


def read(lifecycle: dict[str, Any], phase: Phase = Phase.RUN) -> scripts.Script | None:
    return scripts.read(component.Component(name="com.example.A", version="1.0.0", lifecycle=lifecycle), phase)


def test_read_when_a_string_then_default_timeout_of_the_phase() -> None:
    found = read({"shutdown": "echo bye"}, Phase.SHUTDOWN)

    assert found is not None
    assert (found.text, found.timeout_s, found.skip) == ("echo bye", 15.0, None)


@pytest.mark.parametrize("step", [None, "", "  \n", {"Script": ""}])
def test_read_when_empty_then_nothing(step: Any) -> None:
    assert read({"run": step}) is None


def test_read_when_an_object_then_keys_in_any_case_and_setenv_on_top_of_the_common_one() -> None:
    found = read(
        {
            "setenv": {"A": 1, "B": "common", "C": True},
            "run": {
                "sCRIPT": "x",
                "timeout": "7",
                "SetEnv": {"B": "step"},
                "SkipIf": "!exists a b",
                "RequiresPrivilege": "true",
            },
        }
    )

    assert found == scripts.Script(
        text="x",
        timeout_s=7.0,
        skip=scripts.Skip("exists", "a b", negated=True),
        environment={"A": "1", "B": "step", "C": "true"},
        privileged=True,
    )


@pytest.mark.parametrize(
    "step",
    [
        ["echo"],
        {"Timeout": 3},
        {"Script": ["x"]},
        {"Script": "x", "Timeout": "soon"},
        {"Script": "x", "Timeout": -1},
        {"Script": "x", "Timeout": True},
        {"Script": "x", "Skipif": "sometimes"},
        {"Script": "x", "Skipif": "onpath"},
        {"Script": "x", "Setenv": ["A=1"]},
        {"Script": "x", "Setenv": {"A=B": "1"}},
        {"Script": "x", "Setenv": {"A": "nul\0"}},
    ],
)
def test_read_when_not_valid_then_the_error_names_component_version_and_phase(step: Any) -> None:
    with pytest.raises(scripts.NotValid, match=r"Run of com.example.A 1\.0\.0"):
        read({"run": step})


@pytest.mark.parametrize(("value", "seconds"), [(None, 3600.0), (5, 5.0), ("60", 60.0), ("never", 3600.0)])
def test_error_reset_when_given_then_seconds_else_an_hour(value: Any, seconds: float) -> None:
    one = component.Component(name="A", version="1", lifecycle={"errorResetTime": value})

    assert scripts.error_reset_s(one) == seconds
