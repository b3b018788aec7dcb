"""The memory budget: which model may come in, and at whose cost (agent_budget.py)."""

from __future__ import annotations

import agent_budget
import pytest
from agent_budget import Action, Way
from hypothesis import given
from hypothesis import strategies as st

MB = 1_000_000


def slot(alias: str, size: int, used_at: float = 0.0, **more: bool) -> agent_budget.Slot:
    return agent_budget.Slot(alias, "1.0.0", size * MB, used_at, **more)


def need(alias: str, size: int, measured: bool = True) -> agent_budget.Need:
    return agent_budget.Need(alias, "2.0.0", size * MB, measured)


def test_decide_when_there_is_no_budget_then_everything_loads() -> None:
    decision = agent_budget.decide(0, [slot("a", 10**6)], need("b", 10**6), Way.OVERLAP)

    assert (decision.action, decision.victims) == (Action.LOAD, ())


@pytest.mark.parametrize(
    ("way", "action", "victims"),
    [
        (Way.OVERLAP, Action.REFUSE, ()),
        (Way.REPLACE, Action.REPLACE, ()),
        (Way.SPILL, Action.LOAD, ("b",)),
        (Way.EITHER, Action.LOAD, ("b",)),
    ],
    ids=["overlap", "replace", "spill", "either"],
)
def test_decide_when_old_and_new_do_not_fit_together_then_as_the_policy_says(
    way: Way, action: Action, victims: tuple[str, ...]
) -> None:
    slots = [slot("a", 40), slot("b", 30, 1.0), slot("c", 20, 2.0)]

    decision = agent_budget.decide(100 * MB, slots, need("a", 40), way)

    assert (decision.action, decision.victims) == (action, victims)


def test_decide_when_refused_then_the_figures_name_what_is_taken_by_whom_and_what_there_is() -> None:
    decision = agent_budget.decide(100 * MB, [slot("a", 40), slot("b", 30)], need("a", 80, False), Way.OVERLAP)

    assert decision.figures == (
        "it needs 80.0 MB (estimated from its file), 70.0 MB of 100.0 MB are taken (a 1.0.0 40.0 MB, b 1.0.0 30.0 MB)"
    )


def test_spill_when_several_could_go_then_those_not_used_for_longest_and_no_more_than_needed() -> None:
    slots = [slot("old", 10, 1.0), slot("older", 10, 0.5), slot("new", 10, 9.0)]

    decision = agent_budget.decide(30 * MB, slots, need("x", 15), Way.SPILL)

    assert decision.victims == ("older", "old")


@pytest.mark.parametrize("kept", [{"pinned": True}, {"safe": True}], ids=["pinned", "part of a trial"])
def test_spill_when_the_only_other_may_not_go_then_refused(kept: dict[str, bool]) -> None:
    decision = agent_budget.decide(30 * MB, [slot("a", 20, **kept)], need("x", 15), Way.SPILL)

    assert (decision.action, decision.victims) == (Action.REFUSE, ())


def test_replace_when_even_without_the_old_there_is_no_room_then_refused_and_nobody_goes() -> None:
    decision = agent_budget.decide(60 * MB, [slot("a", 20), slot("b", 30)], need("a", 40), Way.REPLACE)

    assert (decision.action, decision.victims) == (Action.REFUSE, ())


def test_either_when_others_are_not_enough_then_the_old_one_goes_too() -> None:
    slots = [slot("a", 40), slot("b", 30, pinned=True), slot("c", 20)]

    decision = agent_budget.decide(100 * MB, slots, need("a", 50), Way.EITHER)

    assert (decision.action, decision.victims) == (Action.REPLACE, ("c",))


def test_replace_when_both_fit_then_no_gap_is_made() -> None:
    decision = agent_budget.decide(60 * MB, [slot("a", 20)], need("a", 40), Way.REPLACE)

    assert decision.action is Action.LOAD


def test_estimate_when_never_loaded_then_four_times_the_file_and_a_process_where_it_has_one() -> None:
    assert agent_budget.estimate(20 * MB, False) == 80 * MB
    assert agent_budget.estimate(10, False) == agent_budget.LEAST_BYTES
    assert agent_budget.estimate(20 * MB, True) == 80 * MB + agent_budget.WORKER_BYTES


def test_learned_when_measured_again_then_less_counts_at_once_and_more_by_half() -> None:
    assert [agent_budget.learned(*each) for each in ((0, 10), (10, 6), (10, 20))] == [10, 6, 15]


SLOTS = st.lists(
    st.builds(
        agent_budget.Slot,
        st.sampled_from("abcdef"),
        st.just("1"),
        st.integers(0, 50),
        st.floats(0, 100),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda each: each.alias,
)
NEEDS = st.builds(agent_budget.Need, st.sampled_from("abcdefg"), st.just("2"), st.integers(0, 80), st.booleans())


@given(st.integers(1, 120), SLOTS, NEEDS, st.sampled_from(Way))
def test_decide_whatever_is_in_memory_then_nobody_who_may_stay_goes_and_the_budget_holds(
    budget: int, slots: list[agent_budget.Slot], wanted: agent_budget.Need, way: Way
) -> None:
    decision = agent_budget.decide(budget, slots, wanted, way)

    by_alias = {each.alias: each for each in slots}
    victims = [by_alias[alias] for alias in decision.victims]
    assert not any(each.pinned or each.safe or each.alias == wanted.alias for each in victims)
    if victims:
        assert (way, decision.action) in {
            (Way.SPILL, Action.LOAD),
            (Way.EITHER, Action.LOAD),
            (Way.EITHER, Action.REPLACE),
        }
    after = sum(each.memory_bytes for each in slots) + wanted.memory_bytes - sum(each.memory_bytes for each in victims)
    if decision.action is Action.LOAD:
        assert after <= budget
    if decision.action is Action.REPLACE:
        old = by_alias[wanted.alias]
        assert not old.safe
        assert after - old.memory_bytes <= budget
