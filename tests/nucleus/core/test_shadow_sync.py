"""The three-way merge, its laws, and that random edits on both sides with lost halves come to the same state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import shadow, shadow_sync

Direction, Side, Synced, Change = (
    shadow_sync.Direction,
    shadow_sync.Side,
    shadow_sync.Synced,
    shadow_sync.Change,
)
BASE = {"reported": {"a": 1, "b": {"x": 1}}, "desired": {"a": 1}}

_leaves = st.integers(0, 2) | st.booleans() | st.lists(st.integers(0, 1), max_size=2)
_trees = st.recursive(_leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6)
_sections = st.dictionaries(st.sampled_from("abc"), _trees, min_size=1, max_size=3)
_states = st.dictionaries(st.sampled_from(["desired", "reported"]), _sections, max_size=2)


@pytest.mark.parametrize(
    ("local", "cloud", "merged"),
    [
        ({"a": 2}, {"a": 1}, ({"a": 2}, {"a": 2})),
        ({"a": 1}, {"a": 2}, ({"a": 2}, {"a": 2})),
        ({"a": 2}, {"a": 3}, ({"a": 2}, {"a": 3})),
        ({}, {"a": 3}, ({}, {"a": 3})),
        ({"a": 2}, {}, ({"a": 2}, {})),
        ({}, {"a": 1}, ({}, {})),
        ({"a": 1, "n": 1}, {"a": 1, "m": 1}, ({"a": 1, "n": 1, "m": 1}, {"a": 1, "n": 1, "m": 1})),
        ({"a": True}, {"a": 1}, ({"a": True}, {"a": True})),
        ({"a": {"x": 1}}, {"a": {"y": 1}}, ({"a": {"x": 1, "y": 1}}, {"a": {"x": 1, "y": 1}})),
    ],
)
def test_merge_when_a_key_changed_then_reported_is_the_devices_and_desired_the_clouds(
    local: dict[str, Any], cloud: dict[str, Any], merged: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """What issue 121 of the original asks to be told: here it is, key by key."""
    base = {"reported": {"a": 1}, "desired": {"a": 1}}

    found = shadow_sync.merge(base, {"reported": local, "desired": local}, {"reported": cloud, "desired": cloud})

    assert (found.get("reported", {}), found.get("desired", {})) == merged
    assert all(type(found["reported"][key]) is type(value) for key, value in merged[0].items())


@given(_states, _states)
def test_merge_when_only_one_side_changed_then_that_side_is_taken(base: dict[str, Any], other: dict[str, Any]) -> None:
    assert shadow.same(shadow_sync.merge(base, other, base), other)
    assert shadow.same(shadow_sync.merge(base, base, other), other)
    assert shadow.same(shadow_sync.merge(base, other, other), other)


@given(_sections, _sections)
def test_difference_when_it_is_applied_then_the_old_is_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    held = shadow.update(shadow.Shadow(), shadow.Request({"desired": old}), 1000)
    assert isinstance(held, shadow.Shadow)

    after = shadow.update(held, shadow.Request({"desired": shadow_sync.difference(old, new)}), 2000)

    assert isinstance(after, shadow.Shadow)
    assert shadow.same(after.state, {"desired": new})


@pytest.mark.parametrize(
    ("local", "cloud", "synced", "local_change", "cloud_change"),
    [
        pytest.param(None, None, Synced(BASE, 3, 5), None, None, id="both gone"),
        pytest.param(Side(BASE, 3), None, Synced(), None, Change(BASE), id="new here"),
        pytest.param(None, Side(BASE, 3), Synced(), Change(BASE), None, id="new there"),
        pytest.param(Side(BASE, 3), None, Synced(BASE, 3, 5), Change(None), None, id="deleted there"),
        pytest.param(None, Side(BASE, 5), Synced(BASE, 3, 5), None, Change(None), id="deleted here"),
        pytest.param(Side({}, 4), None, Synced(BASE, 3, 5), None, Change({}), id="deleted there, edited here"),
        pytest.param(None, Side({}, 6), Synced(BASE, 3, 5), Change({}), None, id="deleted here, edited there"),
        pytest.param(Side(BASE, 5), None, Synced(BASE, 3, 5), None, Change(BASE), id="deleted there, made anew here"),
        pytest.param(None, Side({}, 5), Synced(BASE, 3, 5), Change({}), None, id="made anew there with the old number"),
        pytest.param(Side(BASE, 3), Side(BASE, 9), Synced(BASE, 3, 5), None, None, id="only versions differ"),
    ],
)
def test_plan_when_one_side_has_no_shadow_then_nothing_made_anew_is_deleted(
    local: shadow_sync.Side | None,
    cloud: shadow_sync.Side | None,
    synced: shadow_sync.Synced,
    local_change: shadow_sync.Change | None,
    cloud_change: shadow_sync.Change | None,
) -> None:
    found = shadow_sync.plan(local, cloud, synced)

    assert (found.local, found.cloud) == (local_change, cloud_change)


@pytest.mark.parametrize(
    ("direction", "local_change", "cloud_change"),
    [
        (Direction.UP, None, Change({"desired": {"a": 1, "b": None}})),
        (Direction.DOWN, Change({"desired": {"a": 2, "b": 1}}), None),
    ],
)
def test_plan_when_one_way_then_the_source_is_copied_and_never_changed(
    direction: shadow_sync.Direction,
    local_change: shadow_sync.Change | None,
    cloud_change: shadow_sync.Change | None,
) -> None:
    local, cloud = Side({"desired": {"a": 1}}, 3), Side({"desired": {"a": 2, "b": 1}}, 5)

    found = shadow_sync.plan(local, cloud, Synced(), direction)

    assert (found.local, found.cloud) == (local_change, cloud_change)


@pytest.mark.parametrize("direction", [Direction.UP, Direction.DOWN])
def test_plan_when_one_way_and_the_source_never_was_then_nothing_is_deleted(direction: shadow_sync.Direction) -> None:
    target = Side(BASE, 5)
    local, cloud = (None, target) if direction is Direction.UP else (target, None)

    assert shadow_sync.plan(local, cloud, Synced(), direction) == shadow_sync.Plan()


class _Pair:
    """Both sides as their services keep them, and what the device remembers."""

    def __init__(self) -> None:
        self.sides = {"local": shadow.Shadow(), "cloud": shadow.Shadow()}
        self.synced = Synced()

    def edit(self, side: str, state: dict[str, Any] | None) -> None:
        held = self.sides[side]
        if state is None:
            self.sides[side] = shadow.tombstone(held, 0) if held.version and not held.deleted else held
            return
        after = shadow.update(held, shadow.Request(state), 0)
        assert isinstance(after, shadow.Shadow)
        self.sides[side] = after

    def side(self, name: str) -> shadow_sync.Side | None:
        held = self.sides[name]
        return Side(held.state, held.version) if held.version and not held.deleted else None

    def synchronise(self, until: int, direction: shadow_sync.Direction) -> bool:
        """Carries out the first `until` steps of a plan, as if the power went then; True if there was nothing to do."""
        plan = shadow_sync.plan(self.side("local"), self.side("cloud"), self.synced, direction)
        changes = [(name, change) for name, change in (("cloud", plan.cloud), ("local", plan.local)) if change]
        for name, change in changes[:until]:
            self.edit(name, change.patch)
        if until > len(changes):
            self.synced = Synced(plan.state, self.sides["local"].version, self.sides["cloud"].version)
        return not changes


_edits = st.tuples(st.sampled_from(["local", "cloud"]), st.none() | _states)
_steps = st.lists(_edits | st.integers(0, 3), max_size=12)


@given(_steps, st.sampled_from(list(Direction)))
def test_plans_when_edits_and_interruptions_alternate_then_both_sides_become_the_same_and_stay(
    steps: list[Any], direction: shadow_sync.Direction
) -> None:
    """No conflict goes round in circles (issue 175 of the original): after one undisturbed plan nothing is left to do."""
    pair = _Pair()
    for step in steps:
        if isinstance(step, int):
            pair.synchronise(step, direction)
        else:
            pair.edit(*step)

    pair.synchronise(3, direction)

    assert pair.synchronise(3, direction), "a second plan still found something to do"
    local, cloud = pair.side("local"), pair.side("cloud")
    if direction is Direction.BOTH or (local is not None and cloud is not None):
        assert (local is None) == (cloud is None)
        assert local is None or cloud is None or shadow.same(local.state, cloud.state)


@given(_states, _states)
def test_plans_when_a_shadow_was_deleted_and_made_anew_in_the_cloud_then_it_comes_and_stays(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Issue 98 of the original: there the second one was deleted at once, with or without the device being online."""
    for online_between in (True, False):
        pair = _Pair()
        pair.edit("cloud", first)
        pair.synchronise(3, Direction.BOTH)
        pair.edit("cloud", None)
        if online_between:
            pair.synchronise(3, Direction.BOTH)
        pair.edit("cloud", second)

        pair.synchronise(3, Direction.BOTH)

        local, cloud = pair.side("local"), pair.side("cloud")
        assert local is not None
        assert cloud is not None
        assert shadow.same(local.state, cloud.state)
        assert shadow.same(cloud.state, second)


@pytest.mark.parametrize(("failures", "low", "high"), [(0, 0.5, 1), (3, 4, 8), (50, 60, 120)])
def test_backoff_when_failures_repeat_then_it_grows_to_a_bound(failures: int, low: float, high: float) -> None:
    assert shadow_sync.backoff_s(failures, 0.0) == low
    assert shadow_sync.backoff_s(failures, 0.999) <= high


def test_next_round_when_periodic_then_a_period_after_the_last_and_a_missed_one_at_once() -> None:
    assert shadow_sync.next_round_s(None, 5, 7) == 7
    assert shadow_sync.next_round_s(300, None, 7) == 7
    assert shadow_sync.next_round_s(300, 5, 7) == 305
    assert shadow_sync.next_round_s(300, 5, 1000) == 1000
