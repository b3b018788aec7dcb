"""Which version of each component a deployment means: greedy negotiation as a value, the whole frontier at once.

Rules (spec/nucleus.md 3.2): every root asks for its exact version under its group's name, every chosen version asks for
its dependencies under its own name; whenever what is asked of a component changes, it is asked for again; the choice a
new answer replaces is withdrawn with everything only it wanted. No back-tracking. The outcome depends on the answers
only, not on how many come at a time: every call of `step` plays the negotiation again from the roots.

The order in which components are met matters in rare cases: one that is asked for beside a requirer that is replaced a
moment later may have no answer then. So before it fails, the negotiation is played once more in the original's own order,
one queue and one component at a time; only what fails there, too, is a conflict.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

from msgspec import Struct

from nucleus.core import clash, errors, graph, recipe, release, version

MEETINGS_LIMIT = 3000  # components met one by one, before the original's order counts as endless


class Ask(Struct, frozen=True, order=True):
    """The question for one version of `name`; `requirements` are sorted (requirer, range) pairs."""

    name: str
    requirements: tuple[tuple[str, str], ...]


class Candidate(Struct, frozen=True):
    """The answer: the version to use and its recipe; `arn` is empty if no cloud was asked."""

    name: str
    version: str
    recipe: recipe.Recipe
    arn: str = ""


class State(Struct, frozen=True):
    """The roots of the negotiation as (component, ((group, "=version"), …)) pairs; all else follows from the answers."""

    roots: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


class Need(Struct, frozen=True):
    """These asks have to be answered before the negotiation can go on; they do not depend on each other."""

    asks: frozenset[Ask]


class Resolved(Struct, frozen=True):
    """The choice for every component, and the order in which dependencies come first."""

    components: dict[str, Candidate]
    order: tuple[str, ...]


class Conflict(Struct, frozen=True):
    """The negotiation cannot succeed; `code` is a word of errors.CODES, `ask` what nobody had an answer to."""

    code: str
    detail: str
    ask: Ask | None = None


Answers = Mapping[Ask, Candidate | None]  # None: there is no version for it


def begin(roots: Mapping[str, Mapping[str, str]]) -> State:
    """Starts from {group: {component: exact version}}. Raises NucleusError COMPONENT_VERSION_NOT_VALID."""
    wanted: dict[str, dict[str, str]] = {}
    for group, components in roots.items():
        for name, exact in components.items():
            wanted.setdefault(name, {})[group] = f"={_root_version(name, group, exact)}"
    return State(tuple((name, tuple(sorted(by_group.items()))) for name, by_group in wanted.items()))


def _root_version(name: str, group: str, exact: str) -> version.Version:
    try:
        return version.Version.parse(exact)
    except errors.NucleusError as error:
        detail = f"cannot deploy component {name} of {group}: {error.detail}"
        raise errors.NucleusError(error.code, detail) from error


def step(state: State, answers: Answers) -> Need | Resolved | Conflict:
    """Plays the negotiation with all answers so far and tells what is missing, or how it ends."""
    found = _at_once(state, answers)
    if not isinstance(found, Conflict) or found.code not in _MATTER_OF_ORDER:
        return found
    return _one_by_one(state, answers) or found


def _at_once(state: State, answers: Answers) -> Need | Resolved | Conflict:
    """Asks for the whole frontier at a time."""
    chosen: dict[str, _Choice] = {}
    seen: set[frozenset[Ask]] = set()  # positions of the play; the asks determine the candidates
    while True:
        asks = _asks(state, chosen)
        chosen = {name: _kept(choice, asks[name]) for name, choice in chosen.items() if name in asks}
        frontier = _frontier(asks, chosen)
        if not frontier:
            return _resolved({name: candidate for name, (_, candidate) in chosen.items()})
        failed = next((found for ask in frontier if (found := _failed(ask, answers))), None)
        if failed is not None:
            return failed
        missing = frozenset(ask for ask in frontier if ask not in answers)
        if missing:
            return Need(missing)
        position = frozenset(ask for ask, _ in chosen.values())
        if position in seen:
            return _unsettled(frontier)
        seen.add(position)
        chosen |= {ask.name: (ask, candidate) for ask in frontier if (candidate := answers[ask]) is not None}


def _one_by_one(state: State, answers: Answers) -> Need | Resolved | Conflict | None:
    """Breadth-first from each root in order, as the original; None if it would go on for ever."""
    asked = {name: dict(by_group) for name, by_group in state.roots}
    chosen: dict[str, Candidate] = {}
    queue = collections.deque[str]()
    roots = collections.deque(name for name, _ in state.roots)
    for _ in range(MEETINGS_LIMIT):
        if not queue and not roots:
            return _resolved(chosen)
        name = queue.popleft() if queue else roots.popleft()
        if not asked.get(name):
            continue  # vanished while it waited
        ask = Ask(name, tuple(sorted(asked[name].items())))
        failed = _failed(ask, answers)
        if failed is not None:
            return failed
        if ask not in answers:
            return Need(frozenset((ask,)))
        candidate = answers[ask]
        if candidate is not None and (name not in chosen or chosen[name].version != candidate.version):
            queue.extend(_exchange(candidate, asked, chosen))
    return None


def _exchange(candidate: Candidate, asked: dict[str, dict[str, str]], chosen: dict[str, Candidate]) -> list[str]:
    """Takes a candidate in place of another version; returns whose requirements changed by that."""
    again = _withdraw(candidate.name, asked, chosen)
    chosen[candidate.name] = candidate
    for name, dependency in candidate.recipe.dependencies.items():
        asked.setdefault(name, {})[candidate.name] = dependency.requirement
        again.append(name)
    return list(dict.fromkeys(again))


def _withdraw(name: str, asked: dict[str, dict[str, str]], chosen: dict[str, Candidate]) -> list[str]:
    """Takes back what the chosen version of `name` asked for; who is asked for by nobody goes, too, and so on."""
    left = list[str]()
    going = [name]
    while going:
        gone = going.pop()
        before = chosen.pop(gone, None)
        for dependency in before.recipe.dependencies if before is not None else ():
            asked[dependency].pop(gone, None)
            (left if asked[dependency] else going).append(dependency)
    return left


def _failed(ask: Ask, answers: Answers) -> Conflict | None:
    """Why this ask ends the negotiation; None if it does not."""
    if _is_impossible(ask):
        return Conflict("COMPONENT_VERSION_REQUIREMENTS_NOT_MET", no_candidate(ask), ask)
    candidate = answers.get(ask)
    if candidate is None:
        return Conflict("NO_AVAILABLE_COMPONENT_VERSION", no_candidate(ask), ask) if ask in answers else None
    wrong = _wrong(ask, candidate)
    return Conflict("RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE", wrong, ask) if wrong else None


def no_candidate(ask: Ask) -> str:
    """The sentence for an ask that no version answers; it names every requirer and range, and the fewest that clash."""
    told = f"cannot find a version of component {ask.name} that all its requirers accept: {_constraints(ask)}"
    return told + clash.sentence(ask.requirements)


_Choice = tuple[Ask, Candidate]
_MATTER_OF_ORDER = frozenset(
    ["COMPONENT_VERSION_REQUIREMENTS_NOT_MET", "NO_AVAILABLE_COMPONENT_VERSION", "COMPONENT_CIRCULAR_DEPENDENCY_ERROR"]
)


def _constraints(ask: Ask) -> str:
    pairs = ", ".join(f"{requirer} requires {range_}" for requirer, range_ in ask.requirements)
    return f"Component {ask.name} version constraints: {pairs}"


def _asks(state: State, chosen: Mapping[str, _Choice]) -> dict[str, Ask]:
    """What is asked now of every component that can be reached from the roots."""
    wanted = {name: dict(by_group) for name, by_group in state.roots}
    reached = list(wanted)
    for requirer in reached:  # grows while it is walked
        dependencies = chosen[requirer][1].recipe.dependencies if requirer in chosen else {}
        for name, dependency in dependencies.items():
            if name not in wanted:
                wanted[name] = {}
                reached.append(name)
            wanted[name][requirer] = dependency.requirement
    return {name: Ask(name, tuple(sorted(requirements.items()))) for name, requirements in wanted.items()}


def _frontier(asks: Mapping[str, Ask], chosen: Mapping[str, _Choice]) -> list[Ask]:
    """The asks that differ from what was answered, without those that may change again by the answers to others.

    A component waits while a chosen requirer of it is asked again: that requirer's new version may ask for less.
    """
    changed = {name: ask for name, ask in asks.items() if name not in chosen or chosen[name][0] != ask}
    ready = [
        ask
        for name, ask in changed.items()
        if not any(requirer in changed and requirer in chosen and requirer != name for requirer, _ in ask.requirements)
    ]
    return sorted(ready or changed.values())  # a circle of requirers has to be asked at once


def _kept(choice: _Choice, ask: Ask) -> _Choice:
    """The choice for what is asked now, if more requirers only joined in and its version suits them as well.

    Then it is the answer to the new ask too: the greatest version for fewer requirers is the greatest for all of them.
    This saves a question to the cloud for every requirer that is found later. Not so if one that joined in names a
    pre-release: that admits versions which were none before.
    """
    before, candidate = choice
    asked_before, asked_now = set(before.requirements), set(ask.requirements)
    if not asked_before < asked_now or _wrong(ask, candidate):
        return choice
    if any(version.Range.parse(range_).names_prerelease() for _, range_ in asked_now - asked_before):
        return choice
    return ask, candidate


def _is_impossible(ask: Ask) -> bool:
    """Whether one requirer pins a version that another refuses, so that asking anybody is useless."""
    ranges = [version.Range.parse(range_) for _, range_ in ask.requirements]
    pins = [pin for pin in (range_.exact() for range_ in ranges) if pin is not None]
    return any(not version.satisfies(pin, ranges) for pin in pins)


def _wrong(ask: Ask, candidate: Candidate) -> str:
    """Why the candidate is no answer to the ask; empty if it is one."""
    ranges = [version.Range.parse(range_) for _, range_ in ask.requirements]
    try:
        fits = version.satisfies(version.Version.parse(candidate.version), ranges)
    except errors.NucleusError as error:
        return f"cannot use the candidate for component {ask.name}: {error.detail}"
    if fits and candidate.name == ask.name:
        return ""
    return f"cannot use candidate {candidate.name} {candidate.version}: it was asked for as {_constraints(ask)}"


def _resolved(components: dict[str, Candidate]) -> Resolved | Conflict:
    kinds = {name: each.recipe.component_type for name, each in components.items() if name != release.CLAIMED}
    nuclei = sorted(name for name, kind in kinds.items() if kind == recipe.NUCLEUS)
    if len(nuclei) > 1:
        detail = f"cannot run more than one component of type {recipe.NUCLEUS}: {', '.join(nuclei)}"
        return Conflict("MULTIPLE_NUCLEUS_RESOLVED_ERROR", detail)
    try:
        order = graph.order({name: tuple(each.recipe.dependencies) for name, each in components.items()})
    except graph.Cycle as cycle:
        detail = f"cannot order the components: they depend on each other in a circle, {' -> '.join(cycle.path)}"
        return Conflict("COMPONENT_CIRCULAR_DEPENDENCY_ERROR", detail)
    return Resolved(components, order)


def _unsettled(frontier: list[Ask]) -> Conflict:
    """Versions that keep replacing each other: the original would go on for ever here."""
    names = "; ".join(_constraints(ask) for ask in frontier)
    detail = f"cannot settle on versions: the choices keep changing what is asked of each other. {names}"
    return Conflict("COMPONENT_VERSION_REQUIREMENTS_NOT_MET", detail)
