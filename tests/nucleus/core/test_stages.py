"""When a deployment that kills the nucleus before its commit is given up."""

from __future__ import annotations

from nucleus.core import stages

BEGUN = stages.Reached(stages.PREPARATION, 0, "boot")


def launched(known: stages.Reached, *, bootstrapping: bool = False, orderly: bool = False) -> stages.Reached:
    return stages.at_launch(known, bootstrapping=bootstrapping, orderly=orderly, boot="boot")


def test_launch_when_it_died_three_times_then_given_up() -> None:
    twice = launched(launched(BEGUN))

    assert not stages.why_given_up(twice)
    assert "died 3 times in the preparation" in stages.why_given_up(launched(twice))


def test_launch_when_orderly_or_after_a_power_cut_then_not_counted() -> None:
    assert launched(BEGUN, orderly=True) == BEGUN
    after = stages.at_launch(BEGUN, bootstrapping=False, orderly=False, boot="other")
    assert after == stages.Reached(stages.PREPARATION, 0, "other")


def test_launch_when_it_came_further_then_counted_anew() -> None:
    further = launched(launched(launched(BEGUN)), bootstrapping=True)

    assert further == stages.Reached(stages.BOOTSTRAP, 1, "boot")


def test_launch_when_it_had_not_begun_then_never_counted() -> None:
    queued = stages.Reached("", 0, "")

    assert launched(launched(launched(queued))).launches == 0


def test_bootstrap_when_it_died_three_times_then_its_own_bound_speaks_first() -> None:
    assert not stages.why_given_up(stages.Reached(stages.BOOTSTRAP, 3, "boot"))
    assert "died 4 times in the bootstrap" in stages.why_given_up(stages.Reached(stages.BOOTSTRAP, 4, "boot"))
