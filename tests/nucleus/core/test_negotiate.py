"""Greedy negotiation: what is asked, what comes out, and that the order of answers does not matter."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import errors, negotiate, recipe, release, version

# name -> version -> {dependency: range}
Registry = dict[str, dict[str, dict[str, str]]]
Outcome = negotiate.Resolved | negotiate.Conflict | str


def candidate(name: str, exact: str, dependencies: dict[str, str], **extra: Any) -> negotiate.Candidate:
    needs = {dependency: recipe.Dependency(range_) for dependency, range_ in dependencies.items()}
    read = recipe.Recipe(name=name, version=exact, dependencies=needs, manifests=(recipe.Manifest(),), **extra)
    return negotiate.Candidate(name, exact, read)


def answer(registry: Registry, ask: negotiate.Ask) -> negotiate.Candidate | None:
    """The highest version that every requirer accepts, as the service answers."""
    ranges = [version.Range.parse(range_) for _, range_ in ask.requirements]
    read = {version.Version.parse(each): each for each in registry.get(ask.name, {})}
    fitting = [each for each in read if version.satisfies(each, ranges)]
    if not fitting:
        return None
    exact = read[max(fitting)]
    return candidate(ask.name, exact, registry[ask.name][exact])


def play(registry: Registry, roots: dict[str, dict[str, str]], *, at_a_time: int = 0, seed: int = 0) -> Outcome:
    """Answers everything that is needed, or only `at_a_time` asks in random order; a sentence if one has no answer."""
    state, answers = negotiate.begin(roots), dict[negotiate.Ask, negotiate.Candidate]()
    chance = random.Random(seed)
    unanswered: set[str] = set()
    for _ in range(10_000):
        step = negotiate.step(state, answers)
        if not isinstance(step, negotiate.Need):
            return step
        asks = sorted(ask for ask in step.asks if negotiate.no_candidate(ask) not in unanswered)
        if not asks:
            return min(unanswered)
        chance.shuffle(asks)
        for ask in asks[: at_a_time or len(asks)]:
            found = answer(registry, ask)
            if found is None:
                unanswered.add(negotiate.no_candidate(ask))
            else:
                answers[ask] = found
    raise AssertionError("the negotiation does not end")


def versions(outcome: Outcome) -> dict[str, str]:
    assert isinstance(outcome, negotiate.Resolved), outcome
    return {name: each.version for name, each in outcome.components.items()}


DEMO: Registry = {
    "Monitor": {"1.0.0": {"Agent": "^1.0.0", "Model": ">=1.0.0"}},
    "Model": {"1.0.0": {"Agent": "^1.0.0"}, "1.1.0": {"Agent": "^1.0.0"}},
    "Agent": {"1.0.0": {}, "1.4.0": {}, "2.0.0": {}},
}


def test_step_when_nothing_is_answered_then_all_roots_are_asked_at_once() -> None:
    step = negotiate.step(negotiate.begin({"thinggroup/t": {"Monitor": "1.0.0", "Model": "1.1.0"}}), {})

    assert step == negotiate.Need(
        frozenset(
            {
                negotiate.Ask("Monitor", (("thinggroup/t", "=1.0.0"),)),
                negotiate.Ask("Model", (("thinggroup/t", "=1.1.0"),)),
            }
        )
    )


def test_step_when_all_is_answered_then_resolved_dependencies_first() -> None:
    outcome = play(DEMO, {"thinggroup/t": {"Monitor": "1.0.0", "Model": "1.0.0"}})

    assert versions(outcome) == {"Monitor": "1.0.0", "Model": "1.0.0", "Agent": "1.4.0"}
    assert isinstance(outcome, negotiate.Resolved)
    assert outcome.order == ("Agent", "Model", "Monitor")


def test_step_when_there_are_no_roots_then_resolved_to_nothing() -> None:
    assert negotiate.step(negotiate.begin({"thinggroup/t": {}}), {}) == negotiate.Resolved({}, ())


def test_step_when_a_later_requirer_narrows_then_asked_again_with_both() -> None:
    registry: Registry = {
        "A": {"1.0.0": {"B": "^1.0.0", "C": "^1.0.0"}},
        "B": {"1.2.0": {"C": "~1.2"}},
        "C": {"1.1.0": {}, "1.2.5": {}, "1.9.0": {"D": "*"}},
        "D": {"1.0.0": {}},
    }

    assert versions(play(registry, {"thing/x": {"A": "1.0.0"}})) == {"A": "1.0.0", "B": "1.2.0", "C": "1.2.5"}


def test_step_when_a_choice_is_replaced_then_what_only_it_wanted_vanishes() -> None:
    registry: Registry = {
        "A": {"1.0.0": {"B": "*", "Z": "*"}},
        "B": {"1.0.0": {}, "2.0.0": {"Old": "*"}},
        "Old": {"1.0.0": {"Older": "*"}},
        "Older": {"1.0.0": {"Old": "*"}},  # a circle, so counting references would keep both
        "Z": {"1.0.0": {"Y": "*"}},
        "Y": {"1.0.0": {"X": "*"}},
        "X": {"1.0.0": {"B": "<2.0.0"}},
    }

    assert sorted(versions(play(registry, {"thing/x": {"A": "1.0.0"}}))) == ["A", "B", "X", "Y", "Z"]


def test_step_when_a_requirer_is_asked_again_then_its_dependency_waits() -> None:
    """B 2 would pin D to what root D refuses; B falls back to 1 in the same round in which D is asked again."""
    registry: Registry = {
        "A": {"1.0.0": {"B": "*", "C": "*"}},
        "B": {"1.0.0": {"D": "^1.0.0"}, "2.0.0": {"D": "^2.0.0"}},
        "C": {"1.0.0": {"B": "<2.0.0", "D": "<2.0.0"}},
        "D": {"1.5.0": {}, "2.5.0": {}},
    }

    assert versions(play(registry, {"thing/x": {"A": "1.0.0"}})) == {
        "A": "1.0.0",
        "B": "1.0.0",
        "C": "1.0.0",
        "D": "1.5.0",
    }


def test_step_when_greedy_choice_conflicts_then_no_backtracking() -> None:
    registry: Registry = {
        "A": {"1.0.0": {"C": "^1.0.0"}},
        "C": {"1.0.0": {}, "1.5.0": {"D": "^2.0.0"}},
        "D": {"1.0.0": {}, "2.0.0": {}},
    }

    outcome = play(registry, {"thinggroup/t": {"A": "1.0.0", "D": "1.0.0"}})

    assert isinstance(outcome, negotiate.Conflict)
    assert "Component D version constraints: C requires ^2.0.0, thinggroup/t requires =1.0.0" in outcome.detail


@pytest.mark.parametrize("range_", ["^1.0.0", "~1.0", "1.x", ">=1.0.0 <2.0.0"])
def test_step_when_requirers_join_one_after_the_other_then_no_new_question(range_: str) -> None:
    """Each would be a round trip to the cloud: 500 components needing each other took 300 s."""
    names = [f"c{number}" for number in range(60)]
    known = {
        name: candidate(name, "1.0.0", dict.fromkeys(names[at + 1 : at + 4], range_)) for at, name in enumerate(names)
    }
    state, answers, rounds = negotiate.begin({"thing/t": dict.fromkeys(names, "1.0.0")}), {}, 0

    while isinstance(found := negotiate.step(state, answers), negotiate.Need):
        answers |= {ask: known[ask.name] for ask in found.asks}
        rounds += 1

    assert versions(found) == dict.fromkeys(names, "1.0.0")
    assert rounds == 1


def test_step_when_two_groups_pin_different_versions_then_conflict_without_asking() -> None:
    roots = {"thinggroup/a": {"X": "1.0.0"}, "thinggroup/b": {"X": "1.1.0"}}

    assert negotiate.step(negotiate.begin(roots), {}) == negotiate.Conflict(
        "COMPONENT_VERSION_REQUIREMENTS_NOT_MET",
        "cannot find a version of component X that all its requirers accept: "
        "Component X version constraints: thinggroup/a requires =1.0.0, thinggroup/b requires =1.1.0",
        negotiate.Ask("X", (("thinggroup/a", "=1.0.0"), ("thinggroup/b", "=1.1.0"))),
    )


def test_no_candidate_when_told_then_names_every_requirer_and_range() -> None:
    ask = negotiate.Ask("X", (("A", "<1.0.0"), ("thinggroup/abc", "=1.1.0")))

    sentence = negotiate.no_candidate(ask)

    assert sentence.endswith("Component X version constraints: A requires <1.0.0, thinggroup/abc requires =1.1.0")
    assert "\n" not in sentence


def test_step_when_dependencies_run_in_a_circle_then_the_path_is_named() -> None:
    registry: Registry = {"A": {"1.0.0": {"B": "*"}}, "B": {"1.0.0": {"C": "*"}}, "C": {"1.0.0": {"B": "*"}}}

    outcome = play(registry, {"thing/x": {"A": "1.0.0"}})

    assert isinstance(outcome, negotiate.Conflict)
    assert outcome.code == "COMPONENT_CIRCULAR_DEPENDENCY_ERROR"
    assert "B -> C -> B" in outcome.detail


def test_step_when_choices_keep_replacing_each_other_then_conflict_not_a_loop() -> None:
    """P 2 forbids Q 2, without which P 2 is forbidden, without which Q 2 is allowed again."""
    registry: Registry = {
        "A": {"1.0.0": {"P": "*", "Q": "*"}},
        "P": {"1.0.0": {}, "2.0.0": {"Q": "<2.0.0"}},
        "Q": {"1.0.0": {"P": "<2.0.0"}, "2.0.0": {}},
    }

    outcome = play(registry, {"thing/x": {"A": "1.0.0"}})

    assert isinstance(outcome, negotiate.Conflict)
    assert outcome.detail.startswith("cannot settle on versions")


def test_step_when_two_nuclei_are_resolved_then_conflict() -> None:
    state = negotiate.begin({"thing/x": {"N": "1.0.0", "M": "1.0.0"}})
    need = negotiate.step(state, {})
    assert isinstance(need, negotiate.Need)

    outcome = negotiate.step(
        state, {ask: candidate(ask.name, "1.0.0", {}, component_type=recipe.NUCLEUS) for ask in need.asks}
    )

    assert isinstance(outcome, negotiate.Conflict)
    assert outcome.code == "MULTIPLE_NUCLEUS_RESOLVED_ERROR"


@pytest.mark.parametrize("found", [("A", "1.0.1"), ("B", "1.0.0"), ("A", "latest")])
def test_step_when_the_answer_does_not_fit_the_ask_then_conflict(found: tuple[str, str]) -> None:
    ask = negotiate.Ask("A", (("thing/x", "=1.0.0"),))

    outcome = negotiate.step(negotiate.begin({"thing/x": {"A": "1.0.0"}}), {ask: candidate(*found, {})})

    assert isinstance(outcome, negotiate.Conflict)
    assert outcome.code == "RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE"
    assert "A" in outcome.detail


@pytest.mark.parametrize("text", ["latest", "1.0", "", "^1.0.0"])
def test_begin_when_a_root_version_is_not_exact_then_refused(text: str) -> None:
    with pytest.raises(errors.NucleusError, match="component A of thinggroup/t") as caught:
        negotiate.begin({"thinggroup/t": {"A": text}})

    assert caught.value.code == "COMPONENT_VERSION_NOT_VALID"


names = st.sampled_from("ABCDEF")
exacts = st.sampled_from(["1.0.0", "1.1.0", "2.0.0"])
ranges = st.sampled_from(["*", "^1.0.0", "<2.0.0", ">=1.1.0", "=1.0.0", "2.x", "1.0.0 || 2.0.0"])
registries = st.fixed_dictionaries(
    {name: st.dictionaries(exacts, st.dictionaries(names, ranges, max_size=3), min_size=1) for name in "ABCDEF"}
)
roots = st.dictionaries(st.sampled_from(["thinggroup/a", "thinggroup/b"]), st.dictionaries(names, exacts, max_size=3))


@given(registries, roots, st.integers(1, 3), st.integers(0, 1000))
def test_step_when_asks_are_answered_in_any_portions_then_the_same_outcome(
    registry: Registry, wanted: dict[str, dict[str, str]], at_a_time: int, seed: int
) -> None:
    together = play(registry, wanted)
    portions = play(registry, wanted, at_a_time=at_a_time, seed=seed)

    assert type(together) is type(portions)
    if isinstance(together, negotiate.Resolved):
        assert together == portions


@given(registries, roots)
def test_step_when_resolved_then_everything_required_is_there_and_fits(
    registry: Registry, wanted: dict[str, dict[str, str]]
) -> None:
    outcome = play(registry, wanted)
    if not isinstance(outcome, negotiate.Resolved):
        return
    chosen = {name: version.Version.parse(each.version) for name, each in outcome.components.items()}

    for components in wanted.values():
        for name, exact in components.items():
            assert str(chosen[name]) == exact
    for each in outcome.components.values():
        for name, dependency in each.recipe.dependencies.items():
            assert version.Range.parse(dependency.requirement).allows(chosen[name])
            assert outcome.order.index(name) < outcome.order.index(each.name)


def sequential(registry: Registry, wanted: dict[str, dict[str, str]]) -> Outcome:
    """The rule with one question at a time, in any order: what the original does over the network."""
    return play(registry, wanted, at_a_time=1)


def catalogue(chance: random.Random) -> tuple[Registry, dict[str, dict[str, str]]]:
    """3 to 12 components in 1 to 4 versions with up to 3 dependencies each, and the roots of 1 to 3 groups."""
    known = [f"C{number}" for number in range(chance.randint(3, 12))]
    exact = ["1.0.0", "1.1.0", "1.2.3", "2.0.0", "2.1.0-rc.1", "3.0.0"]
    wishes = ["*", "^1.0.0", "~1.1", "<2.0.0", ">=1.1.0", "=1.0.0", "2.x", "1.0.0 || >=2.0.0", ">=1.0.0 <3.0.0"]
    registry: Registry = {
        name: {
            each: {
                other: chance.choice(wishes) for other in chance.sample(known, chance.randint(0, 3)) if other != name
            }
            for each in chance.sample(exact, chance.randint(1, 4))
        }
        for name in known
    }
    wanted = {
        f"thinggroup/{group}": {
            name: chance.choice(sorted(registry[name])) for name in chance.sample(known, chance.randint(1, 3))
        }
        for group in range(chance.randint(1, 3))
    }
    return registry, wanted


# MARRAM_CATALOGUES=10000 plays them all (`make catalogues`).
CATALOGUES = int(os.environ.get("MARRAM_CATALOGUES", "600"))


def test_step_when_the_whole_frontier_is_asked_at_once_then_as_the_sequential_rule_on_random_catalogues() -> None:
    kinds = set()
    for seed in range(CATALOGUES):
        registry, wanted = catalogue(random.Random(seed))
        together, one_by_one = play(registry, wanted), sequential(registry, wanted)

        kinds.add(type(together))
        assert type(together) is type(one_by_one), seed
        if isinstance(together, negotiate.Resolved):
            assert together == one_by_one, seed
    assert kinds == {negotiate.Resolved, negotiate.Conflict, str}


def test_step_when_our_nucleus_comes_with_the_one_it_claims_to_be_then_no_conflict() -> None:
    state = negotiate.begin({"thing/x": {release.COMPONENT: "1.0.0", release.CLAIMED: "1.0.0"}})
    need = negotiate.step(state, {})
    assert isinstance(need, negotiate.Need)

    outcome = negotiate.step(
        state, {ask: candidate(ask.name, "1.0.0", {}, component_type=recipe.NUCLEUS) for ask in need.asks}
    )

    assert isinstance(outcome, negotiate.Resolved)
