"""From resolved components and a document to what shall be: configuration changes and component records.

Sources: spec/nucleus.md 4.4 (one component's configuration), 4.5 (the new tree), 1.5 and 1.8 (lifecycle, interpolation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core import builtin, component, configuration, document, errors, interpolate, negotiate, recipe

SERVICES = "services"
GROUPS = ("services", "DeploymentService", "GroupToRootComponents")
LAST = ("services", "DeploymentService", "GroupToLastDeployment")


class Paths(Struct, frozen=True):
    """Folders of one component version, as text for its scripts."""

    artifacts: str
    decompressed: str
    work: str


class Device(Struct, frozen=True):
    """What scripts may know of the device, and what manifests are chosen by."""

    root_path: str
    thing_name: str
    platform: dict[str, str]


class Desired(Struct, frozen=True):
    """`tree` is the configuration with everything of the deployment in it, `changes` what has to be committed for that.

    `left` are place-holders of scripts that nobody could fill; they stay as they are (spec 1.8).
    """

    components: dict[str, component.Component]
    tree: configuration.Tree
    changes: tuple[configuration.Change, ...]
    left: tuple[str, ...]


def compose(
    resolved: Mapping[str, negotiate.Candidate],
    wanted: document.Document,
    tree: configuration.Tree,
    paths: Mapping[str, Paths],
    device: Device,
    *,
    stamp: int,
) -> Desired:
    """The desired state. `stamp` (device clock) marks what the nucleus writes; configuration bears the document's time.

    Raises NucleusError (no manifest fits, a bad lifecycle).
    """
    origin = f"deployment:{wanted.deployment_id}"
    changes: list[configuration.Change] = []
    for name, one in resolved.items():
        tree, made = _configure(tree, name, one, wanted.components.get(name), wanted.created_ms, origin)
        changes += made
    known = {name: _known(tree, name, one, paths[name]) for name, one in resolved.items()}
    found: dict[str, component.Component] = {}
    left: list[str] = []
    for name, one in resolved.items():
        if name in builtin.NAMES:
            continue
        record, missing = _component(tree, one, wanted, known, device)
        left += missing
        tree, made = _record(tree, record, stamp, origin)
        changes += made
        found[name] = record
    return Desired(found, tree, tuple(changes), tuple(left))


def installed(tree: configuration.Tree) -> dict[str, component.Component]:
    """The components recorded in a configuration tree, built-ins left out."""
    found = {}
    for name, data in _plain(tree, (SERVICES,)).items():
        if not isinstance(data, dict) or "componentType" not in data or name in builtin.NAMES:
            continue
        fields = {
            key: data[key]
            for key in ("version", "componentType", "dependencies", "lifecycle", "runWith")
            if key in data
        }
        found[name] = msgspec.convert({"name": name, **fields}, component.Component)
    return found


def roots(tree: configuration.Tree) -> dict[str, dict[str, str]]:
    """Group name to its root components and their versions, as the last deployments of the groups left them."""
    return {
        group: {name: str(one["version"]) for name, one in members.items()}
        for group, members in _plain(tree, GROUPS).items()
        if isinstance(members, dict)
    }


def arns_of(tree: configuration.Tree, name: str) -> tuple[list[str], bool]:
    """Configuration ARNs of the groups that want a component as root, and whether it is a root at all."""
    arns = [
        str(members[name].get("groupConfigArn", ""))
        for members in _plain(tree, GROUPS).values()
        if isinstance(members, dict) and name in members
    ]
    return arns, bool(arns)


def settle(
    tree: configuration.Tree, wanted: document.Document, leaving: frozenset[str], removed: frozenset[str], stamp: int
) -> tuple[configuration.Tree, tuple[configuration.Change, ...]]:
    """The last commit of a deployment: its group's roots, groups left since, and removed components taken out."""
    changes: list[configuration.Change] = []
    members = {
        name: {"version": wish.version, "groupConfigArn": wanted.configuration_arn}
        for name, wish in wanted.components.items()
    }
    # An empty group stays as an empty map would: nothing; the leaf of LAST remembers that it was deployed to.
    tree, made = configuration.replace(tree, (*GROUPS, wanted.group), members, stamp, "nucleus")
    changes += made
    last = {"timestamp": wanted.created_ms, "configArn": wanted.configuration_arn}
    tree, made = configuration.replace(tree, (*LAST, wanted.group), last, stamp, "nucleus")
    changes += made
    for path in [(*GROUPS, group) for group in sorted(leaving)] + [(SERVICES, name) for name in sorted(removed)]:
        tree, made = configuration.remove(tree, path, stamp)
        changes += made
    return tree, tuple(changes)


def last_created_ms(tree: configuration.Tree, group: str) -> int:
    """Creation time of the newest deployment that was processed for a group, 0 for none (stale check, spec 5.6)."""
    found = _plain(tree, (*LAST, group)).get("timestamp", 0)
    return int(found)


def undo(before: configuration.Tree, changes: tuple[configuration.Change, ...]) -> tuple[configuration.Change, ...]:
    """Changes that bring every path touched by `changes` back to what it was in `before`."""
    made: dict[configuration.Path, configuration.Change] = {}
    for change in changes:
        leaves = list(configuration.leaves(before, change.path))
        if not leaves:
            made.setdefault(change.path, configuration.Change(change.path, None, change.stamp, "nucleus", True))
        for path, leaf in leaves:
            made[path] = configuration.Change(path, leaf.value, leaf.stamp, leaf.origin)
    # removals first: a node that was created over a former leaf must go before the leaf returns
    return tuple(sorted(made.values(), key=lambda one: not one.removed))


def still_ours(
    current: configuration.Tree,
    written: tuple[configuration.Change, ...],
    back: tuple[configuration.Change, ...],
) -> tuple[configuration.Change, ...]:
    """Those of `back` that no component has overwritten since: an acknowledged write survives a rollback."""
    ours = {one.path: one for one in written}
    kept = []
    for change in back:
        now = list(configuration.leaves(current, change.path))
        foreign = any(
            leaf.origin.startswith("component:") and leaf.stamp > ours[change.path].stamp
            for _, leaf in now
            if change.path in ours
        )
        if not foreign:
            kept.append(change)
    return tuple(kept)


def _configure(
    tree: configuration.Tree,
    name: str,
    one: negotiate.Candidate,
    wish: document.Wish | None,
    stamp: int,
    origin: str,
) -> tuple[configuration.Tree, tuple[configuration.Change, ...]]:
    return configuration.reset_and_merge(
        tree,
        (SERVICES, name, "configuration"),
        defaults=one.recipe.configuration,
        reset=wish.reset if wish is not None else (),
        merge=wish.merge if wish is not None else None,
        stamp=stamp,
        origin=origin,
    )


def _known(tree: configuration.Tree, name: str, one: negotiate.Candidate, paths: Paths) -> interpolate.Known:
    return interpolate.Known(
        version=one.version,
        configuration=_plain(tree, (SERVICES, name, "configuration")),
        artifacts_path=paths.artifacts,
        decompressed_path=paths.decompressed,
        work_path=paths.work,
    )


def _component(
    tree: configuration.Tree,
    one: negotiate.Candidate,
    wanted: document.Document,
    known: Mapping[str, interpolate.Known],
    device: Device,
) -> tuple[component.Component, tuple[str, ...]]:
    manifest = recipe.choose(one.recipe, device.platform)
    if manifest is None:
        raise errors.NucleusError(
            "NO_AVAILABLE_COMPONENT_VERSION",
            f"cannot install {one.name} {one.version}: no manifest of its recipe fits this platform {device.platform}",
        )
    script, left = interpolate.lifecycle(
        one.name,
        recipe.lifecycle(one.recipe, manifest),
        known,
        system=interpolate.System(root_path=device.root_path, thing_name=device.thing_name),
        dependencies=frozenset(one.recipe.dependencies),
    )
    return (
        component.Component(
            name=one.name,
            version=one.version,
            component_type=one.recipe.component_type,
            dependencies={
                name: kind.kind for name, kind in one.recipe.dependencies.items() if name not in builtin.NAMES
            },
            lifecycle=script,
            run_with=_run_with(tree, one.name, wanted),
        ),
        left,
    )


def _run_with(tree: configuration.Tree, name: str, wanted: document.Document) -> component.RunWith:
    """A cloud document that leaves the user out clears it; a local one changes it only if given (spec 4.5)."""
    wish = wanted.components.get(name)
    if wish is not None and wish.run_with is not None:
        return wish.run_with
    if wish is not None and wanted.group != document.LOCAL_GROUP:
        return component.RunWith()
    before = _plain(tree, (SERVICES, name, "runWith"))
    return msgspec.convert(before, component.RunWith) if before else component.RunWith()


def _record(
    tree: configuration.Tree, record: component.Component, stamp: int, origin: str
) -> tuple[configuration.Tree, tuple[configuration.Change, ...]]:
    """Writes one component's record; keys that are gone are removed, equal ones stay untouched."""
    base = (SERVICES, record.name)
    fields: dict[str, Any] = {
        "version": record.version,
        "componentType": record.component_type,
        "dependencies": record.dependencies,
        "lifecycle": record.lifecycle,
        "runWith": msgspec.to_builtins(record.run_with),
    }
    changes: list[configuration.Change] = []
    for key, value in fields.items():
        if _get(tree, (*base, key)) == value:
            continue
        tree, made = configuration.replace(tree, (*base, key), value, stamp, origin)
        changes += made
    return tree, tuple(changes)


def _get(tree: configuration.Tree, path: configuration.Path) -> Any:
    try:
        return configuration.get(tree, path)
    except KeyError:
        return None


def _plain(tree: configuration.Tree, path: configuration.Path) -> dict[str, Any]:
    found = _get(tree, path)
    return found if isinstance(found, dict) else {}
