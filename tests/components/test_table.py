"""The alias table: every transition, who may write, and rules that hold after any sequence of events (agent_table.py)."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import agent_entry
import agent_table
import pytest
from agent_entry import Entry, Held, State
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

C = "com.example.Model"


def model(version: int, component: str = C, key: str = "") -> Held:
    return Held(f"{version}.0.0", key or f"{component}-{version}", component)


def after(*events: Any, entry: Entry | None = None) -> Entry:
    for event in events:
        entry = agent_table.step(entry, event)
    assert entry is not None
    return entry


ONE, TWO, THREE = model(1), model(2), model(3)
SERVING = after(agent_table.Accepted(ONE), agent_table.Accepted(TWO))
TRIAL = after(agent_table.TrialBegun(THREE), entry=SERVING)
HELD = after(agent_table.HoldBegun("drift", "psi 0.4"), entry=SERVING)


def test_accepted_when_a_version_served_then_that_is_the_previous_one() -> None:
    assert (SERVING.serving, SERVING.previous, SERVING.offered) == (TWO, ONE, "2.0.0")


def test_accepted_when_another_components_model_served_then_there_is_no_previous() -> None:
    other = after(agent_table.Accepted(model(1, "com.example.Other")), entry=SERVING)

    assert (other.component, other.previous) == ("com.example.Other", None)


def test_accepted_when_it_answered_before_then_what_came_after_it_is_left_and_is_no_version_before() -> None:
    three = after(agent_table.Accepted(THREE), entry=SERVING)

    back = after(agent_table.Accepted(ONE), entry=three)

    assert (back.serving, back.previous, back.before, back.left) == (ONE, None, (), (THREE, TWO))
    assert back.kept() == (ONE,)
    with pytest.raises(agent_table.IllegalError, match=r"no version before 1\.0\.0"):
        agent_table.step(back, agent_table.HoldBegun("drift", "psi 0.4"))


def test_accepted_when_only_the_version_of_the_same_bytes_changes_then_a_hold_goes_to_other_bytes() -> None:
    renamed = dataclasses.replace(TWO, version="2.0.1")
    entry = after(agent_table.Accepted(renamed), entry=SERVING)

    assert (entry.previous, entry.before) == (ONE, (ONE, TWO))
    assert after(agent_table.Accepted(TWO), entry=entry).previous == ONE


def test_accepted_when_another_owner_brings_it_then_nothing_is_gone_back_to() -> None:
    entry = after(agent_table.Accepted(ONE, agent_entry.BUNDLE), entry=SERVING)

    assert (entry.before, entry.left, entry.previous) == ((), (), None)


def test_returns_when_something_answered_before_then_only_that_and_only_for_its_owner() -> None:
    held = after(agent_table.Accepted(THREE), entry=HELD)  # 2.0.0 was held back

    assert [held.returns(each, agent_entry.DEPLOYMENT) for each in (ONE, TWO, THREE)] == [True, False, False]
    assert [held.answered(each) for each in (ONE, TWO, THREE)] == [True, True, False]
    assert not held.returns(ONE, agent_entry.BUNDLE)


def test_refused_then_nothing_changes_but_what_should_answer_and_why_not() -> None:
    refused = after(agent_table.Refused(C, "3.0.0", "REFUSED: golden sample 1"), entry=SERVING)

    assert dataclasses.replace(refused, offered="2.0.0", refusal="", refused=False) == SERVING
    assert (refused.offered, refused.why) == ("3.0.0", "REFUSED: golden sample 1")


def test_released_when_what_was_offered_last_was_refused_then_others_may_have_the_alias_but_no_lease_runs() -> None:
    refused = after(agent_table.Refused(C, "3.0.0", "SIGNING_KEY_REVOKED: ..."), agent_table.Released(), entry=SERVING)

    assert not agent_entry.leased(refused)
    assert not agent_entry.objection("a", refused, "com.example.Other", agent_entry.DEPLOYMENT)
    for event in (agent_table.Confirmed(TWO), agent_table.Accepted(THREE), agent_table.TrialBegun(THREE)):
        assert agent_entry.leased(after(event, agent_table.Released(), entry=refused))


def test_refused_when_offered_by_another_component_then_nothing_changes() -> None:
    assert after(agent_table.Refused("com.example.Other", "9", "no"), entry=SERVING) == SERVING


def test_trial_when_begun_then_the_old_answers_and_the_candidate_is_kept() -> None:
    assert agent_entry.state(TRIAL) is State.TRIAL
    assert (TRIAL.serving, TRIAL.candidate, TRIAL.offered) == (TWO, THREE, "3.0.0")
    assert set(TRIAL.kept()) == {ONE, TWO, THREE}


def test_trial_when_promoted_then_the_candidate_answers_and_the_old_is_previous() -> None:
    promoted = after(agent_table.Promoted("agreed"), entry=TRIAL)

    assert (promoted.serving, promoted.previous, promoted.candidate) == (THREE, TWO, None)


def test_trial_when_dropped_then_a_second_offer_of_the_same_stays_dropped() -> None:
    dropped = after(agent_table.Dropped("DISAGREES: 0.7"), entry=TRIAL)
    again = after(agent_table.Confirmed(THREE), entry=dropped)

    assert (dropped.serving, dropped.candidate, dropped.why) == (TWO, None, "DISAGREES: 0.7")
    assert again == dropped


def test_trial_when_one_that_answered_before_is_dropped_then_it_may_be_tried_again() -> None:
    back = after(agent_table.Accepted(ONE), agent_table.TrialBegun(TWO), entry=SERVING)

    dropped = after(agent_table.Dropped("DISAGREES: 0.7"), entry=back)

    assert (dropped.dropped, dropped.why) == (None, "DISAGREES: 0.7")


def test_trial_when_its_candidate_is_postponed_then_it_is_kept_and_says_why_until_it_comes() -> None:
    waiting = after(agent_table.Postponed("no room"), entry=TRIAL)

    assert (waiting.why, waiting.kept()) == ("no room", TRIAL.kept())
    assert agent_entry.state(waiting) is State.TRIAL
    assert after(agent_table.Postponed(), entry=waiting) == TRIAL
    assert after(agent_table.Confirmed(TWO), entry=waiting).why == ""
    assert after(agent_table.Promoted(), entry=waiting).why == ""


def test_trial_when_the_serving_version_is_offered_again_then_the_trial_is_over() -> None:
    back = after(agent_table.Confirmed(TWO), entry=TRIAL)

    assert (agent_entry.state(back), back.serving, back.offered, back.why) == (State.SERVING, TWO, "2.0.0", "")


def test_hold_then_the_version_before_answers_and_both_copies_stay() -> None:
    assert agent_entry.state(HELD) is State.HELD
    assert (HELD.serving, HELD.offered, HELD.withheld, HELD.why) == (ONE, "2.0.0", TWO, "psi 0.4")
    assert set(HELD.kept()) == {ONE, TWO}


def test_hold_when_its_component_starts_again_then_it_stays() -> None:
    assert after(agent_table.Released(), agent_table.Confirmed(TWO), entry=HELD) == HELD


@pytest.mark.parametrize(
    ("event", "serving"),
    [
        (agent_table.HoldReleased(), TWO),
        (agent_table.Accepted(THREE), THREE),
        (agent_table.TrialBegun(THREE), ONE),
        (agent_table.Confirmed(ONE), ONE),
    ],
    ids=["released", "newer version", "newer version on trial", "the version before offered"],
)
def test_hold_when_it_ends_then_nothing_is_held(event: Any, serving: Held) -> None:
    ended = after(event, entry=HELD)

    assert (ended.held_by, ended.withheld, ended.serving) == ("", None, serving)


def test_hold_when_a_newer_version_is_refused_then_it_stays_and_tells_both_reasons() -> None:
    refused = after(agent_table.Refused(C, "3.0.0", "BAD"), entry=HELD)

    assert (refused.serving, refused.offered, refused.why) == (ONE, "3.0.0", "psi 0.4; BAD")


ILLEGAL = [
    ("hold nothing", None, agent_table.HoldBegun("me", "")),
    ("hold in a trial", TRIAL, agent_table.HoldBegun("me", "")),
    ("hold twice", HELD, agent_table.HoldBegun("me", "")),
    ("hold the first", after(agent_table.Accepted(ONE)), agent_table.HoldBegun("me", "")),
    ("release no hold", SERVING, agent_table.HoldReleased()),
    ("promote nothing", SERVING, agent_table.Promoted()),
    ("drop nothing", HELD, agent_table.Dropped("")),
    ("postpone nothing", SERVING, agent_table.Postponed("no room")),
    ("try alone", None, agent_table.TrialBegun(ONE)),
    ("evict in a trial", TRIAL, agent_table.Evicted()),
    ("confirm the unknown", SERVING, agent_table.Confirmed(THREE)),
    ("withdraw nothing", None, agent_table.Withdrawn()),
]


@pytest.mark.parametrize(("entry", "event"), [case[1:] for case in ILLEGAL], ids=[case[0] for case in ILLEGAL])
def test_step_when_the_event_does_not_belong_to_the_state_then_it_says_so(entry: Entry | None, event: Any) -> None:
    with pytest.raises(agent_table.IllegalError) as caught:
        agent_table.step(entry, event)
    assert caught.value.code in ("FAILED_PRECONDITION", "NO_PREVIOUS")


@pytest.mark.parametrize(
    ("entry", "serving"),
    [
        (SERVING, ONE),
        (TRIAL, ONE),
        (HELD, TWO),
        (after(agent_table.TrialBegun(TWO), entry=after(agent_table.Accepted(ONE))), TWO),
    ],
    ids=["previous", "previous in a trial", "what was held back", "the candidate"],
)
def test_damaged_when_the_copy_of_what_serves_is_then_the_next_answers_and_says_why(
    entry: Entry, serving: Held
) -> None:
    found = after(agent_table.Damaged(entry.serving.key, "its copy is damaged"), entry=entry)

    assert (found.serving, found.refusal) == (serving, "its copy is damaged")
    assert entry.serving not in found.kept()


@pytest.mark.parametrize(
    ("entry", "barred", "serving"),
    [
        (SERVING, [ONE], None),
        (TRIAL, [ONE], THREE),
        (TRIAL, [ONE, THREE], None),
        (HELD, [TWO], None),
        (SERVING, [TWO], ONE),
    ],
    ids=["the one before", "it, in a trial", "it and the candidate", "what was held back", "only what is damaged"],
)
def test_damaged_when_who_is_next_may_not_answer_then_it_leaves_and_the_one_after_it_answers(
    entry: Entry, barred: list[Held], serving: Held | None
) -> None:
    event = agent_table.Damaged(entry.serving.key, "damaged", {each.key: "revoked" for each in barred})

    found = agent_table.step(entry, event)

    assert (found.serving if found else None) == serving
    assert not found or not {each.key for each in barred} & {each.key for each in found.kept()}


def test_damaged_when_it_is_not_what_serves_then_who_may_not_answer_stays_where_it_is() -> None:
    event = agent_table.Damaged(THREE.key, "damaged", {TWO.key: "revoked", ONE.key: "revoked"})

    found = after(event, entry=TRIAL)

    assert (found.serving, found.previous, found.candidate) == (TWO, ONE, None)


def test_damaged_when_the_candidate_is_and_the_version_before_is_the_same_then_both_leave_and_it_says_why() -> None:
    entry = after(agent_table.TrialBegun(ONE), entry=SERVING)

    found = after(agent_table.Damaged(ONE.key, "its copy is damaged"), entry=entry)

    assert (found.serving, found.previous, found.candidate, found.why) == (TWO, None, None, "its copy is damaged")
    assert not after(agent_table.Damaged(ONE.key, "its copy is damaged"), entry=SERVING).why


def test_damaged_when_there_is_nothing_else_then_the_alias_is_empty() -> None:
    assert agent_table.step(after(agent_table.Accepted(ONE)), agent_table.Damaged(ONE.key, "")) is None


def owned(component: str, owner: str, *, released: bool = False) -> Entry:
    return Entry(component, "1.0.0", model(1, component), owner=owner, released=released)


OBJECTIONS = [
    ("its own", owned(C, "deployment"), C, "deployment", ""),
    ("nobody's", None, C, "deployment", ""),
    (
        "a running component's",
        owned("com.A", "deployment"),
        C,
        "deployment",
        "belongs to com.A, which is running; remove",
    ),
    ("a stopped component's", owned("com.A", "deployment", released=True), C, "deployment", ""),
    ("a bundle over a deployment", owned(C, "deployment"), C, "bundle", f"{C} (deployment); change it by a deployment"),
    ("a stopped one's to a bundle", owned(C, "deployment", released=True), C, "bundle", "change it by a deployment"),
    ("a deployment over a bundle", owned(C, "bundle"), C, "deployment", f"{C} (bundle); apply a newer bundle"),
    (
        "a deployment over a door",
        owned("door:edge-manager", "local"),
        C,
        "deployment",
        "(local); unload it there first",
    ),
    ("a door over another", owned("door:edge-manager", "local"), "marram:repository", "local", "unload it there first"),
]


@pytest.mark.parametrize(
    ("entry", "component", "owner", "words"), [case[1:] for case in OBJECTIONS], ids=[case[0] for case in OBJECTIONS]
)
def test_objection_when_somebody_writes_then_the_owner_is_named_and_what_to_do(
    entry: Entry | None, component: str, owner: str, words: str
) -> None:
    said = agent_entry.objection("a", entry, component, owner)

    assert (words in said) if words else not said


VERSIONS = st.builds(model, st.integers(1, 4), st.sampled_from((C, "com.example.Other")))
EVENTS = st.one_of(
    st.builds(agent_table.Accepted, VERSIONS, st.sampled_from(("deployment", "bundle"))),
    st.builds(agent_table.TrialBegun, VERSIONS),
    st.builds(agent_table.Confirmed, VERSIONS),
    st.builds(agent_table.Promoted, st.just("agreed")),
    st.builds(agent_table.Dropped, st.just("DISAGREES")),
    st.builds(agent_table.HoldBegun, st.just("drift"), st.just("psi")),
    st.builds(agent_table.Postponed, st.sampled_from(("", "no room"))),
    st.builds(agent_table.HoldReleased),
    st.builds(agent_table.Released),
    st.builds(agent_table.Withdrawn),
    st.builds(agent_table.LeaseOver),
    st.builds(agent_table.Evicted),
    st.builds(agent_table.Reloaded),
    st.builds(
        agent_table.Damaged,
        VERSIONS.map(lambda each: each.key),
        st.just("damaged"),
        st.dictionaries(VERSIONS.map(lambda each: each.key), st.just("revoked"), max_size=3),
    ),
)


class Table(RuleBasedStateMachine):
    """Any events in any order; illegal ones must raise and leave the entry as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.entry: Entry | None = None

    @rule(event=EVENTS)
    def happens(self, event: Any) -> None:
        before = self.entry
        if isinstance(event, agent_table.Accepted | agent_table.TrialBegun) and self._is_here(event.model):
            return  # the shell confirms those
        with contextlib.suppress(agent_table.IllegalError):
            self.entry = agent_table.step(before, event)
        if isinstance(event, agent_table.TrialBegun | agent_table.Dropped) and before is not None:
            assert self.entry is not None
            assert self.entry.serving == before.serving
        if isinstance(event, agent_table.HoldBegun) and self.entry is not before:
            assert before is not None
            assert self.entry is not None
            assert self.entry.serving in before.before
            assert not any(self.entry.serving.same(each) for each in before.left)
        if isinstance(event, agent_table.Accepted) and before is not None and before.returns(event.model, event.owner):
            assert self.entry is not None
            assert before.serving in self.entry.left
            assert not before.serving.same(self.entry.previous)
        if isinstance(event, agent_table.Damaged) and before is not None and self.entry is not None:
            assert self.entry.serving == before.serving or self.entry.serving.key not in event.barred

    @precondition(lambda self: self.entry is not None)
    @rule(version=st.integers(1, 4), component=st.sampled_from((C, "com.example.Other")))
    def refused(self, version: int, component: str) -> None:
        before = self.entry
        assert before is not None

        self.entry = agent_table.step(before, agent_table.Refused(component, f"{version}.9.9", "REFUSED", before.owner))

        assert self.entry is not None
        assert (self.entry.kept(), self.entry.evicted) == (before.kept(), before.evicted)
        assert agent_entry.state(self.entry) is agent_entry.state(before)

    def _is_here(self, offered: Held) -> bool:
        entry = self.entry
        roles = () if entry is None else (entry.serving, entry.candidate, entry.withheld)
        return any(offered.same(role) for role in roles)

    @invariant()
    def what_should_answer_differs_only_for_a_told_reason(self) -> None:
        if self.entry is not None and self.entry.offered != self.entry.serving.version:
            assert self.entry.candidate is not None or self.entry.why

    @invariant()
    def a_hold_keeps_something_back_and_runs_no_trial(self) -> None:
        entry = self.entry
        if entry is not None and entry.held_by:
            assert entry.candidate is None
            assert entry.withheld is not None or entry.refusal
        elif entry is not None:
            assert entry.withheld is None

    @invariant()
    def no_model_has_two_roles_that_exclude_each_other(self) -> None:
        entry = self.entry
        if entry is not None:
            keys = [each.key for each in (entry.serving, entry.candidate, entry.withheld) if each is not None]
            assert len(keys) == len(set(keys))

    @invariant()
    def what_answered_before_was_not_left_and_neither_answers(self) -> None:
        entry = self.entry
        if entry is not None:
            known = [(each.component, each.version) for each in (entry.serving, *entry.before, *entry.left)]
            assert len(known) == len(set(known))
            assert max(len(entry.before), len(entry.left)) <= agent_entry.MEMORY
            assert entry.previous is None or entry.previous in entry.before

    @invariant()
    def a_version_before_is_of_the_same_component(self) -> None:
        entry = self.entry
        if entry is not None and entry.previous is not None and entry.candidate is None:
            assert entry.previous.component == entry.serving.component


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
