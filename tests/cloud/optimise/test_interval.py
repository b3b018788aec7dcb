from __future__ import annotations

import numpy as np

from cloud.optimise import interval, scores


def _counts(right: list[int]) -> scores.Array:
    """Counts of one class: each sample right (1) or wrong and missed (0)."""
    return np.array([[[one, 1 - one, 1 - one]] for one in right], dtype=float)


def test_paired_when_both_sides_are_equal_then_nothing_may_be_lost() -> None:
    counts = _counts([1, 0, 1, 1, 0, 1])

    found = interval.paired(counts, counts, scores.value)

    assert (found.low, found.high) == (0, 0)


def test_paired_when_asked_twice_then_the_same_numbers() -> None:
    source, candidate = _counts([1] * 60), _counts([1, 1, 1, 0, 1, 1] * 10)

    assert interval.paired(candidate, source, scores.value) == interval.paired(candidate, source, scores.value)


def test_paired_when_errors_come_in_runs_then_longer_blocks_give_a_wider_interval() -> None:
    # Ten of a hundred frames are wrong: one run of ten, as when a walker is missed for seconds.
    source, candidate = _counts([1] * 100), _counts([0] * 10 + [1] * 90)

    alone = interval.paired(candidate, source, scores.value, length=1)
    in_blocks = interval.paired(candidate, source, scores.value, length=10)

    assert in_blocks.low < alone.low < -0.1 < alone.high


def test_paired_when_coverage_is_counted_then_near_what_it_says() -> None:
    # 200 sets of independent samples that are right with 0.9: the truth is in about 95 of 100 intervals.
    random, inside = np.random.default_rng(3), 0
    source = _counts([1] * 150)
    for _ in range(200):
        right = (random.random(150) < 0.9).astype(int).tolist()
        found = interval.paired(_counts(right), source, scores.value, length=1, draws=400)
        inside += found.low <= -0.1 <= found.high

    assert 178 <= inside <= 199


def test_block_when_not_given_then_the_root_of_the_samples() -> None:
    assert [interval.block(count) for count in (1, 9, 132)] == [1, 3, 11]
