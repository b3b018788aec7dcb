"""Answers to "why": why this version and who asked for it, where a value came from, what a deployment would do.

Sources: spec/nucleus.md 3.3 (what runs is kept while it satisfies everybody), 4.1 (origins), 2.5 (dependents).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from nucleus.core import bootstrap, builtin, component, configuration, desired, errors, plan, recipe, version
from nucleus.core.lifecycle import Effect

ROOT = "ROOT"  # beside HARD and SOFT: a group's deployment names the component itself


class Requirer(Struct, frozen=True, rename="camel"):
    """Who wants a component: a group (kind ROOT, an exact version) or a component (HARD or SOFT, a range)."""

    name: str
    range: str
    kind: str


class Refusal(Struct, frozen=True, rename="camel"):
    """A greater version that lies on the device and is not used."""

    version: str
    reason: str


class Reason(Struct, frozen=True, rename="camel"):
    """Why a component is there in this version. `since_ms` is the stamp of the write by `origin`."""

    component: str
    version: str
    requirers: tuple[Requirer, ...]
    refused: tuple[Refusal, ...]
    origin: str
    since_ms: int
    sentence: str


class Origin(Struct, frozen=True, rename="camel"):
    """One value of a component's configuration, who wrote it, and when (ms; 1 for defaults and the file)."""

    key_path: tuple[str, ...]
    value: Any
    origin: str
    stamp_ms: int


def origins(tree: configuration.Tree, name: str, key_path: Sequence[str]) -> tuple[Origin, ...] | None:
    """Every leaf at or below a key path of a component's configuration; None if there is nothing."""
    base = ("services", name, "configuration")
    node = configuration.find(tree, (*base, *key_path))
    if node is None:
        return None
    found = configuration.leaves(node, tuple(key_path))
    return tuple(Origin(path, leaf.value, leaf.origin, leaf.stamp) for path, leaf in found)


def requirers(
    roots: Mapping[str, Mapping[str, str]], recipes: Mapping[str, recipe.Recipe]
) -> dict[str, tuple[Requirer, ...]]:
    """Who wants what: roots maps a group to {component: exact version}, recipes are those of the chosen versions."""
    found: dict[str, list[Requirer]] = {}
    for group, members in roots.items():
        for name, exact in members.items():
            found.setdefault(name, []).append(Requirer(group, f"={exact}", ROOT))
    for requirer, one in recipes.items():
        for name, need in one.dependencies.items():
            found.setdefault(name, []).append(Requirer(f"{requirer} {one.version}", need.requirement, need.kind))
    return {name: tuple(asking) for name, asking in found.items()}


def reasons(
    tree: configuration.Tree, recipes: Mapping[str, recipe.Recipe], stored: Mapping[str, Sequence[str]]
) -> tuple[Reason, ...]:
    """Why every installed component is there; `stored` maps a name to the versions whose recipes are on the device."""
    asking = requirers(desired.roots(tree), recipes)
    found = []
    for name, one in sorted(desired.installed(tree).items()):
        wanted = asking.get(name, ())
        leaf = configuration.find(tree, (desired.SERVICES, name, "version"))
        known = leaf if isinstance(leaf, configuration.Leaf) else configuration.Leaf(one.version, 0, "unknown")
        refused = tuple(_refusals(one.version, stored.get(name, ()), wanted))
        found.append(Reason(name, one.version, wanted, refused, known.origin, known.stamp, _sentence(one, wanted)))
    return tuple(found)


def _sentence(one: component.Component, asking: tuple[Requirer, ...]) -> str:
    if not asking:
        return f"{one.name} {one.version} is there, but nobody asks for it: the next deployment removes it"
    told = ", ".join(f"{each.name} ({each.range}, {each.kind})" for each in asking)
    pinned = [each for each in asking if each.kind == ROOT]
    if pinned:
        return f"{one.name} is {one.version} because {pinned[0].name} names this version; asked for by {told}"
    return f"{one.name} is {one.version} because that satisfied everybody when it was resolved; asked for by {told}"


def _refusals(chosen: str, stored: Sequence[str], asking: tuple[Requirer, ...]) -> list[Refusal]:
    found = []
    for text in stored:
        if version.Version.parse(text) <= version.Version.parse(chosen):
            continue
        against = [each for each in asking if not _accepts(each.range, text)]
        told = ", ".join(f"{each.name} requires {each.range}" for each in against)
        kept = f"{chosen} satisfied everybody first, and what runs is kept until somebody asks for more"
        found.append(Refusal(text, told or kept))
    return found


def _accepts(range_: str, text: str) -> bool:
    try:
        return version.Range.parse(range_).allows(version.Version.parse(text))
    except errors.NucleusError:
        return False


# ---- what a deployment would do ------------------------------------------------------------------------------------


class Download(Struct, frozen=True, rename="camel"):
    """An artifact that is not in the store yet; `source` says where it would come from. No size: nobody could tell it."""

    component: str
    version: str
    uri: str
    source: str
    size_bytes: int | None = None


class Action(Struct, frozen=True, rename="camel"):
    """One component that would be stopped, started or removed, and why."""

    component: str
    version: str
    reason: str


class Outlook(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a deployment would do, in order: `downloads`, `bootstraps`, `stops` (dependents first), `starts`, `removals`.

    `restart` says why the nucleus itself would start anew before the stops, "" if it would not. `configuration` names the
    keys that would get another value, as `component: key/path`. `warnings` are sentences: what a rollback could not restore.
    """

    group: str
    downloads: tuple[Download, ...]
    bootstraps: tuple[Action, ...]
    restart: str
    stops: tuple[Action, ...]
    starts: tuple[Action, ...]
    removals: tuple[Action, ...]
    configuration: tuple[str, ...]
    unchanged: tuple[str, ...]
    requirers: dict[str, tuple[Requirer, ...]]
    warnings: tuple[str, ...] = ()


def outlook(
    group: str,
    actual: Mapping[str, component.Component],
    way: plan.Plan,
    *,
    restart_keys: Sequence[str] = (),
    downloads: Sequence[Download],
    changes: Sequence[configuration.Change],
    asking: Mapping[str, tuple[Requirer, ...]],
    warnings: Sequence[str] = (),
) -> Outlook:
    """Puts a plan into the order in which people will see it happen."""
    acting = {step.component.name: step for step in way.steps if step.effect is not Effect.KEEP}
    tasks = bootstrap.forward(actual, {step.component.name: step.component for step in way.steps})
    stopping = frozenset(name for name, step in acting.items() if step.effect is not Effect.OVERLAP)
    stops = _stops(actual, way, stopping)
    starts = tuple(
        Action(step.component.name, step.component.version, step.reason)
        for step in way.steps
        if step.effect is not Effect.KEEP
    )
    held = {action.component for action in stops} - set(acting)
    again = tuple(
        Action(step.component.name, step.component.version, f"it starts again behind {_behind(step.component, acting)}")
        for step in way.steps
        if step.component.name in held
    )
    return Outlook(
        group=group,
        downloads=tuple(downloads),
        bootstraps=tuple(Action(one.component.name, one.component.version, one.reason) for one in tasks),
        restart=_restart(tasks, restart_keys),
        stops=stops,
        starts=_ordered(starts + again, way),
        removals=tuple(Action(one.name, actual[one.name].version, one.reason) for one in way.removals),
        configuration=tuple(sorted(filter(None, map(_key, changes)))),
        unchanged=tuple(step.component.name for step in way.steps if step.component.name not in {*acting, *held}),
        requirers={name: each for name, each in asking.items() if name not in builtin.NAMES},
        warnings=tuple(warnings),
    )


def _restart(tasks: Sequence[bootstrap.Task], keys: Sequence[str]) -> str:
    if keys:
        return f"{', '.join(keys)} of the nucleus count only after a restart"
    return "only if a Bootstrap step asks for it (exit code 100 or 101)" if tasks else ""


def _stops(actual: Mapping[str, component.Component], way: plan.Plan, acting: frozenset[str]) -> tuple[Action, ...]:
    """What stops before anything starts anew: changed components that run now, and whatever cannot run without them."""
    changed = acting & actual.keys()
    affected = plan.with_dependents(changed, actual)
    found = []
    for step in reversed(way.steps):
        name = step.component.name
        if name in affected:
            why = step.reason if name in changed else f"it cannot run without {_behind(actual[name], changed)}"
            found.append(Action(name, actual[name].version, why))
    return tuple(found)


def _behind(one: component.Component, changed: Mapping[str, object] | frozenset[str]) -> str:
    needs = [name for name, kind in one.dependencies.items() if kind == component.HARD]
    return ", ".join(name for name in needs if name in changed) or ", ".join(needs)


def _ordered(actions: tuple[Action, ...], way: plan.Plan) -> tuple[Action, ...]:
    place = {step.component.name: at for at, step in enumerate(way.steps)}
    return tuple(sorted(actions, key=lambda one: place[one.component]))


def _key(change: configuration.Change) -> str:
    """`component: key/path` of a change of a component's configuration, "" for records of the nucleus itself."""
    path = change.path
    if len(path) < 3 or path[0] != desired.SERVICES or path[2] != "configuration":
        return ""
    return f"{path[1]}: {'/'.join(path[3:])}{' (removed)' if change.removed else ''}"
