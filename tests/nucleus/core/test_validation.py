"""Configuration validation: what is asked of whom, and what the answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import configuration, validation

A, B, C = "com.example.A", "com.example.B", "com.example.C"
ACCEPTED, REJECTED = validation.Answer(True), validation.Answer(False, "no")


def tree(**components: tuple[str, dict[str, Any]]) -> configuration.Tree:
    """A tree of installed components, given as their last name = (version, configuration)."""
    services = {
        f"com.example.{name}": {"version": version, "componentType": "GENERIC", "configuration": values}
        for name, (version, values) in components.items()
    }
    return configuration.merge(configuration.Tree(), (), {"services": services}, 5, "test")[0]


def test_proposals_when_compared_then_only_listening_ones_of_the_same_version_with_other_values() -> None:
    before = tree(A=("1.0.0", {"x": 1}), B=("1.0.0", {"x": 1}), C=("1.0.0", {"x": 1}))
    after = tree(A=("1.0.0", {"x": 2}), B=("2.0.0", {"x": 2}), C=("1.0.0", {"x": 1}))

    assert validation.proposals(before, after, frozenset({A, B, C, "com.example.D"})) == {A: {"x": 2}}
    assert validation.proposals(before, after, frozenset({B})) == {}


@pytest.mark.parametrize(
    ("answers", "silence_fails", "why"),
    [
        ({A: ACCEPTED, B: ACCEPTED}, True, ""),
        ({A: ACCEPTED}, False, ""),
        ({A: ACCEPTED}, True, f"not answered within 20 s by {B}"),
        ({A: REJECTED}, False, f"refused by {A}: no"),
        ({A: validation.Answer(False)}, True, f"refused by {A}: no reason given"),
    ],
)
def test_objection_when_answered_then_says_who_and_why(
    answers: dict[str, validation.Answer], silence_fails: bool, why: str
) -> None:
    assert validation.objection(frozenset({A, B}), answers, silence_fails=silence_fails, timeout_s=20.0) == why
