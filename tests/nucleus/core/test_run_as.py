"""Who runs a component, in which shell, within which limits."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import component, run_as

NOBODY_SET = run_as.Defaults()
DEFAULT = run_as.Defaults(posix_user="ggc_user:ggc_group")


@pytest.mark.parametrize(
    ("asked", "default", "privileged", "is_root", "expected"),
    [
        ("alice", DEFAULT, False, True, "alice"),
        ("", DEFAULT, False, True, "ggc_user:ggc_group"),
        ("", DEFAULT, False, False, "ggc_user:ggc_group"),
        ("", NOBODY_SET, False, False, run_as.OWN),
        ("alice", DEFAULT, True, True, run_as.OWN),
        ("", NOBODY_SET, True, True, run_as.OWN),
    ],
)
def test_choose_when_asked_then_the_nearest_wish_wins(
    asked: str, default: run_as.Defaults, privileged: bool, is_root: bool, expected: str
) -> None:
    assert run_as.choose(asked, default, privileged=privileged, is_root=is_root) == expected


def test_choose_when_the_nucleus_is_root_and_nobody_is_named_then_it_says_what_to_set() -> None:
    with pytest.raises(run_as.NotChosen, match=r"runWithDefault\.posixUser"):
        run_as.choose("", NOBODY_SET, privileged=False, is_root=True)


def test_defaults_when_given_then_all_are_read() -> None:
    limits = {"memory": 1000, "cpus": 0.5}

    found = run_as.defaults(
        {"runWithDefault": {"posixUser": "u", "posixShell": "bash", "systemResourceLimits": limits}}
    )

    assert found == run_as.Defaults("u", "bash", 1000, 0.5)


@pytest.mark.parametrize("bad", [None, "text", 7, {"posixUser": None, "systemResourceLimits": {"memory": "much"}}])
def test_defaults_when_of_the_wrong_type_then_not_given(bad: Any) -> None:
    assert run_as.defaults({"runWithDefault": bad}, "0") == run_as.Defaults(posix_user="0")


def test_limits_when_partly_given_then_each_of_its_own() -> None:
    default = run_as.Defaults(memory_kb=1000, cpus=2.0)

    assert run_as.limits(component.RunWith(cpus=0.5), default) == run_as.Limits(1000, 0.5)
    assert run_as.limits(component.RunWith(memory_kb=-1, cpus=-1), NOBODY_SET) == run_as.Limits()


@pytest.mark.parametrize("bad", ["", ":group", "user:", "a:b:c", "a b", "../x"])
def test_split_when_not_user_or_user_and_group_then_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is not user"):
        run_as.split(bad)
