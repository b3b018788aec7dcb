"""The smallest set of requirers that cannot be had together."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import clash, negotiate, version


@pytest.mark.parametrize(
    ("ranges", "found"),
    [
        (["^1.0.0", ">=1.2.0", "^2.0.0"], ["^1.0.0", "^2.0.0"]),
        (["=1.0.0", "^1.0.0", ">=1.1"], ["=1.0.0", ">=1.1"]),
        (["*", "<1.0.0", ">=1.0.0 <3.0.0", "~0.9"], ["<1.0.0", ">=1.0.0 <3.0.0"]),
        (["1.x || 2.x", "2.x || 3.x", "1.x || 3.x"], ["1.x || 2.x", "2.x || 3.x", "1.x || 3.x"]),
        ([">2.0.0 <1.0.0", "*"], [">2.0.0 <1.0.0"]),
        (["^1.2.0", ">1.2", "<1.4"], []),
        (["<0.0.1"], []),
    ],
)
def test_smallest_when_ranges_meet_then_the_fewest_that_exclude_each_other(ranges: list[str], found: list[str]) -> None:
    asking = [(f"r{number}", range_) for number, range_ in enumerate(ranges)]

    assert [range_ for _, range_ in clash.smallest(asking)] == found


def test_no_candidate_when_two_of_three_clash_then_all_are_named_and_the_two() -> None:
    ask = negotiate.Ask("C", (("A", "^1.0.0"), ("B", "^2.0.0"), ("D", "*")))

    told = negotiate.no_candidate(ask)

    assert "A requires ^1.0.0, B requires ^2.0.0, D requires *" in told
    assert "no version can ever satisfy A (^1.0.0) and B (^2.0.0)" in told


bounds = st.tuples(st.sampled_from(["^", "~", ">=", "<", "=", ">", "<="]), st.integers(0, 3), st.integers(0, 2))
GRID = [version.Version.parse(f"{a}.{b}.{c}") for a, b, c in itertools.product(range(5), range(4), range(4))]


@given(st.lists(bounds.map(lambda one: f"{one[0]}{one[1]}.{one[2]}.0"), min_size=1, max_size=5))
def test_smallest_when_every_version_is_tried_then_it_says_the_same(ranges: list[str]) -> None:
    asking = [(f"r{number}", range_) for number, range_ in enumerate(ranges)]
    found = clash.smallest(asking)
    read = [version.Range.parse(range_) for range_ in ranges]

    assert bool(found) != any(version.satisfies(one, read) for one in GRID)
    for left_out in found:
        rest = [version.Range.parse(range_) for requirer, range_ in found if requirer != left_out[0]]
        assert any(version.satisfies(one, rest) for one in GRID)
