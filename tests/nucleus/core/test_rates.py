"""The bucket of permits."""

from __future__ import annotations

import pytest

from nucleus.core import rates


def test_take_when_several_are_wanted_then_all_or_none_and_how_long_it_takes() -> None:
    bucket, wait_s = rates.take(rates.full(10, 0), 0, 8)
    assert wait_s == 0

    same, wait_s = rates.take(bucket, 0, 4)
    assert wait_s == pytest.approx(0.2)
    assert same.permits == pytest.approx(2)

    assert rates.take(same, 0.2, 4)[1] == 0


def test_take_when_more_is_wanted_than_it_holds_then_it_is_emptied() -> None:
    bucket, wait_s = rates.take(rates.full(10, 0), 0, 1000)

    assert (bucket.permits, wait_s) == (0, 0)
    assert rates.take(bucket, 0, 1000)[1] == pytest.approx(1)
