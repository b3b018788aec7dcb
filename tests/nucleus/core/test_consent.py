"""The question before an update: whose answer decides what, and when."""

from __future__ import annotations

import pytest

from nucleus.core import consent

A, B = "com.example.A", "com.example.B"
ASKED = consent.Round(frozenset({A, B}), until=60.0)


def test_judge_when_nobody_listens_then_agreed() -> None:
    assert consent.judge(consent.Round(frozenset(), 60.0), 0.0) == consent.Agreed()


def test_judge_when_one_is_silent_then_waits_for_it_until_the_timeout() -> None:
    current = consent.answer(ASKED, A, 0, 1.0)

    assert consent.judge(current, 2.0) == consent.Waiting((B,), 60.0)
    assert consent.judge(current, 60.0) == consent.Agreed()


@pytest.mark.parametrize("recheck", [0, -1])
def test_judge_when_all_say_go_on_then_agreed(recheck: int) -> None:
    current = consent.answer(consent.answer(ASKED, A, recheck, 1.0), B, recheck, 2.0)

    assert consent.judge(current, 2.0) == consent.Agreed()


def test_judge_when_two_defer_then_the_longest_counts_and_then_asks_again() -> None:
    current = consent.answer(consent.answer(ASKED, A, 5_000, 1.0), B, 90_000, 2.0)

    assert consent.judge(current, 3.0) == consent.Deferred((A, B), 92.0)
    assert consent.judge(current, 50.0) == consent.Deferred((B,), 92.0)
    assert consent.judge(current, 92.0) == consent.AskAgain()


def test_judge_when_a_short_deferral_ends_while_another_is_silent_then_asks_again_after_the_timeout() -> None:
    current = consent.answer(ASKED, A, 1_000, 1.0)

    assert consent.judge(current, 10.0) == consent.Waiting((B,), 60.0)
    assert consent.judge(current, 60.0) == consent.AskAgain()


def test_answer_when_given_again_then_the_later_one_counts() -> None:
    current = consent.answer(consent.answer(ASKED, B, 0, 1.0), A, 90_000, 1.0)

    assert consent.judge(consent.answer(current, A, 0, 5.0), 5.0) == consent.Agreed()


def test_leave_when_it_was_silent_then_not_waited_for_and_its_deferral_stays_when_it_deferred() -> None:
    assert consent.judge(consent.leave(consent.leave(ASKED, A), B), 1.0) == consent.Agreed()
    deferred = consent.leave(consent.answer(consent.leave(ASKED, B), A, 5_000, 1.0), A)
    assert consent.judge(deferred, 2.0) == consent.Deferred((A,), 6.0)


def test_answer_when_absurdly_long_then_bounded() -> None:
    current = consent.answer(consent.Round(frozenset({A}), 60.0), A, 10**30, 0.0)

    assert consent.judge(current, 1.0) == consent.Deferred((A,), consent.MAX_DEFERRAL_S)
