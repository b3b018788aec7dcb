"""A slice of `make walk`: random deployments, outcomes of scripts, writes and kills through the pure core."""

from __future__ import annotations

import pytest

from nucleus.core import configuration, desired
from tools.walk import sequence

SLICES, EACH = 10, 100


@pytest.mark.parametrize("first", range(0, SLICES * 1000, 1000))
def test_walk_when_everything_is_random_then_the_invariants_hold(first: int) -> None:
    for seed in range(first, first + EACH):
        try:
            sequence.Sequence(seed).play()
        except AssertionError as error:
            raise AssertionError(f"python -m tools.walk --count 1 --seed {seed}: {error}") from error


def test_still_ours_when_a_component_wrote_beside_the_deployment_then_only_its_own_leaf_stays() -> None:
    where = ("services", "com.example.A", "configuration")
    before, _ = configuration.merge(configuration.EMPTY, where, {"deep": 6}, 1, "file")
    deployed, _ = configuration.replace(before, (*where, "deep"), {"y": 9}, 2, "deployment:d1")
    undo = configuration.diff(deployed, before)
    current, _ = configuration.merge(deployed, (*where, "deep"), {"x": 7}, 3, "component:com.example.A")

    back = configuration.apply(current, desired.still_ours(current, undo))

    assert configuration.get(back, where) == {"deep": {"x": 7}}
