"""A slice of `make walk`: random deployments, outcomes of scripts, writes and kills through the pure core."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import configuration, undo
from tools.walk import sequence

SLICES, EACH = 10, 100


@pytest.mark.parametrize("first", range(0, SLICES * 1000, 1000))
def test_walk_when_everything_is_random_then_the_invariants_hold(first: int) -> None:
    for seed in range(first, first + EACH):
        try:
            sequence.Sequence(seed).play()
        except AssertionError as error:
            raise AssertionError(f"python -m tools.walk --count 1 --seed {seed}: {error}") from error


WHERE = ("services", "com.example.A", "configuration")


@pytest.mark.parametrize(
    ("before", "deployed", "written", "after"),
    [
        ({"deep": 6}, {"deep": {"y": 9}}, {"deep": {"x": 7}}, {"deep": {"x": 7}}),
        ({}, {"deep": {"y": 9, "z": {"a": 1}}}, {"deep": {"x": 7}}, {"deep": {"x": 7}}),
        ({}, {"deep": {"y": [2]}}, {"mode": "8"}, {"mode": "8"}),
        ({"mode": "m"}, {"mode": "n", "speed": 1}, {"mode": "8"}, {"mode": "8"}),
    ],
)
def test_way_back_when_a_component_wrote_beside_the_deployment_then_only_its_own_leaves_stay(
    before: dict[str, Any], deployed: dict[str, Any], written: dict[str, Any], after: dict[str, Any]
) -> None:
    tree, _ = configuration.merge(configuration.EMPTY, ("services", "com.example.A", "version"), "1.0.0", 1, "file")
    if before:
        tree, _ = configuration.merge(tree, WHERE, before, 1, "file")
    in_force, _ = configuration.merge(tree, WHERE, deployed, 2, "deployment:d1")
    back = configuration.diff(in_force, tree)
    current, _ = configuration.merge(in_force, WHERE, written, 3, "component:com.example.A")

    found = configuration.apply(current, undo.still_ours(current, back))

    assert configuration.get(found, WHERE) == after
