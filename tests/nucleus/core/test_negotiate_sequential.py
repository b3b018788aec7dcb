"""Negotiation against the sequential rule of the original on random catalogues; where the two differ, and only there.

What the sequential rule resolves, ours resolves to the same versions; what both cannot resolve fails with the same code.
The rule with a queue meets some components before all their requirers are known, and fails on a question that is not asked
in the end (or goes on for ever): some of these catalogues ours resolves. Nothing else may differ.
"""

from __future__ import annotations

import collections
import os
import random

from nucleus.core import negotiate
from tests.nucleus.core import sequential_oracle as oracle
from tests.nucleus.core import test_negotiate

# MARRAM_CATALOGUES=10000 plays them all (`make catalogues`).
CATALOGUES = int(os.environ.get("MARRAM_CATALOGUES", "600"))
EXACT = ("1.0.0", "1.1.0", "1.2.3-beta.3", "1.2.3", "2.0.0", "2.1.0-rc.1", "2.1.0-rc.2", "3.0.0")
EASY = ("*", "", ">=1.0.0", "<3.0.0", "1.x || >=2.0.0", "1.0.0 || 2.1.0-rc.1 || >=1.1.0", ">=1.0.0-a")
HARDER = ("x", "^1.0.0", "~1.1", "~1", "<2.0.0", ">=1.1.0", "=1.0.0", "2.x", ">=1.0.0 <3.0.0", "1.0.0 - 2.0", "v1.1.0")
HARDEST = (">1", "<=2.0", "^2.1.0-alpha", ">=2.1.0-rc.1 <2.2.0", "1.0.0 || 2.1.0-rc.1", "~1.2.3-beta.2 || 1.1.0")
NONE = "NO_AVAILABLE_COMPONENT_VERSION"
Wanted = dict[str, dict[str, str]]
Found = dict[str, str] | oracle.Failed | negotiate.Conflict


def catalogue(chance: random.Random) -> tuple[test_negotiate.Registry, Wanted, oracle.Local]:
    known = [f"C{number}" for number in range(chance.randint(3, 10))]
    easy, circles = chance.choice((0.3, 0.7, 0.9)), chance.random() < 0.2
    registry: test_negotiate.Registry = {}
    for number, name in enumerate(known):
        pool = [each for each in known if each != name] if circles else known[number + 1 :]
        registry[name] = {
            exact: {
                other: chance.choice(EASY if chance.random() < easy else HARDER + HARDEST)
                for other in chance.sample(pool, min(len(pool), chance.randint(0, 3)))
            }
            for exact in chance.sample(EXACT, chance.randint(2, 6))
        }
    pinned = {name: chance.choice(sorted(registry[name])) for name in known}
    groups = chance.sample(("thinggroup/0", "thing/t", "LOCAL_DEPLOYMENT"), chance.randint(1, 3))
    wanted = {
        group: {name: pinned[name] for name in chance.sample(known, chance.choice((1, 1, 2)))} for group in groups
    }
    return registry, wanted, _local(chance, registry) if chance.random() < 0.5 else oracle.Local()


def _local(chance: random.Random, registry: test_negotiate.Registry) -> oracle.Local:
    stored = {
        name: tuple(chance.sample(sorted(some), chance.randint(1, len(some))))
        for name, some in registry.items()
        if chance.random() < 0.9
    }
    running = {name: chance.choice(some) for name, some in stored.items() if chance.random() < 0.6}
    return oracle.Local(running, stored, cloud=chance.random() < 0.6)


def play(registry: test_negotiate.Registry, wanted: Wanted, local: oracle.Local) -> Found:
    state, answers = negotiate.begin(wanted), dict[negotiate.Ask, negotiate.Candidate | None]()
    while True:
        found = negotiate.step(state, answers)
        if isinstance(found, negotiate.Resolved):
            return {name: each.version for name, each in found.components.items()}
        if isinstance(found, negotiate.Conflict):
            return found
        for ask in sorted(found.asks):
            exact = oracle.resolve_one(registry, local, ask.name, dict(ask.requirements))
            answers[ask] = (
                None if exact is None else test_negotiate.candidate(ask.name, exact, registry[ask.name][exact])
            )


def asked_in_the_end(registry: test_negotiate.Registry, wanted: Wanted, chosen: dict[str, str]) -> Wanted:
    """{component: {requirer: range}} of a resolution."""
    found: Wanted = collections.defaultdict(dict)
    for group, components in wanted.items():
        for name, exact in components.items():
            found[name][group] = f"={exact}"
    for requirer, exact in chosen.items():
        for name, range_ in registry[requirer][exact].items():
            found[name][requirer] = range_
    return found


def kind(seed: int) -> str:
    """How the two compare; an AssertionError if they differ where they must not."""
    registry, wanted, local = catalogue(random.Random(seed))
    ours, theirs = play(registry, wanted, local), oracle.Oracle(registry, wanted, local).play()
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours == theirs, seed
        return "resolved"
    if isinstance(ours, dict):
        assert isinstance(theirs, oracle.Failed)
        final = asked_in_the_end(registry, wanted, ours)
        assert theirs.endless or theirs.asked != final[theirs.name], seed
        return "only ours"
    assert isinstance(theirs, oracle.Failed), seed  # never only theirs
    code = oracle.NOT_MET if ours.code == NONE else ours.code  # the oracle has one word for both
    assert code == theirs.code or theirs.endless, seed
    return "failed"


def test_step_when_compared_with_the_sequential_rule_on_random_catalogues_then_the_same() -> None:
    kinds = collections.Counter(kind(seed) for seed in range(CATALOGUES))

    assert kinds["resolved"] > CATALOGUES / 5, kinds
    assert kinds["failed"] > CATALOGUES / 5, kinds
    assert kinds["only ours"] <= max(3, CATALOGUES / 200), kinds


def test_step_when_a_requirer_that_joins_names_a_prerelease_then_asked_again() -> None:
    registry: test_negotiate.Registry = {
        "A": {"1.0.0": {"B": "*", "C": "*"}},
        "B": {"1.0.0": {"C": "1.x || 2.1.0-rc.1"}},
        "C": {"1.0.0": {}, "2.1.0-rc.1": {}},
    }
    wanted = {"thing/t": {"A": "1.0.0"}}

    found = play(registry, wanted, oracle.Local())

    assert found == oracle.Oracle(registry, wanted).play() == {"A": "1.0.0", "B": "1.0.0", "C": "2.1.0-rc.1"}
