"""From resolved components and a document to what shall be: configuration changes and component records.

Sources: spec/nucleus.md 4.4 (one component's configuration), 4.5 (the new tree), 1.5 and 1.8 (lifecycle, interpolation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core import builtin, care, component, configuration, document, errors, interpolate, negotiate, recipe

SERVICES = "services"
GROUPS = ("services", "DeploymentService", "GroupToRootComponents")
PROCESSING_TIME = "deploymentProcessingTime"  # the other word, the default: deploymentCreationTime
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
    astray: bool = False,
) -> Desired:
    """The desired state. `stamp` (device clock) marks what the nucleus writes; configuration bears the document's time.

    A document from the device's future counts as written now: else no component could change its keys until then. So
    does every document while the device's clock is `astray`, behind its own stamps: else what a component wrote while
    the clock ran ahead could not be changed from the cloud for years. With the nucleus's setting
    `deploymentConfigurationTimeSource: deploymentProcessingTime` every document does, always, and so wins over what
    components wrote since it was created (spec/nucleus.md 4.5).
    Raises NucleusError (no manifest fits, a bad lifecycle).
    """
    origin = f"deployment:{wanted.deployment_id}"
    before = tree
    source = _get(tree, (SERVICES, builtin.NUCLEUS, "configuration", "deploymentConfigurationTimeSource"))
    written_ms = stamp if astray or source == PROCESSING_TIME else min(wanted.created_ms, stamp)
    for name, one in resolved.items():
        tree = _configure(tree, name, one, wanted.components.get(name), written_ms, origin)
    known = {name: _known(tree, name, one, paths[name]) for name, one in resolved.items()}
    if _get(tree, (SERVICES, builtin.NUCLEUS, "configuration", "interpolateComponentConfiguration")) in (True, "true"):
        for one in resolved.values():
            tree = _interpolated(tree, one, known, device)
        known = {name: _known(tree, name, one, paths[name]) for name, one in resolved.items()}
    found: dict[str, component.Component] = {}
    left: list[str] = []
    for name, one in resolved.items():
        if name in builtin.NAMES:
            record = component.Component(name=name, version=one.version, component_type=builtin.kind(name))
            tree = _record(tree, record, stamp, origin)
            continue
        found[name], missing = _component(tree, one, wanted, known, device)
        left += missing
        tree = _record(tree, found[name], stamp, origin)
    return Desired(found, tree, configuration.diff(before, tree), tuple(left))


def installed(tree: configuration.Tree) -> dict[str, component.Component]:
    """The components recorded in a configuration tree, built-ins left out.

    One whose record cannot be read is there too and will be BROKEN: it must not keep the others from running.
    """
    found = {}
    for name, data in _plain(tree, (SERVICES,)).items():
        if not isinstance(data, dict) or "componentType" not in data or name in builtin.NAMES:
            continue
        fields = {
            key: data[key]
            for key in ("version", "componentType", "dependencies", "lifecycle", "runWith", "marram")
            if key in data
        }
        try:
            found[name] = msgspec.convert({"name": name, **fields}, component.Component)
        except msgspec.ValidationError as error:
            damage = {component.UNREADABLE: str(error)}
            found[name] = component.Component(name=name, version=str(data.get("version") or "?"), lifecycle=damage)
    return found


def removable(tree: configuration.Tree) -> frozenset[str]:
    """Whatever a deployment may take away again: all that is recorded but the nucleus itself."""
    return (frozenset(installed(tree)) | frozenset(builtin.recorded(tree))) - {builtin.NUCLEUS}


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
) -> tuple[configuration.Change, ...]:
    """The last commit of a deployment: its group's roots, groups left since, and removed components taken out."""
    before = tree
    members = {
        name: {"version": wish.version, "groupConfigArn": wanted.configuration_arn}
        for name, wish in wanted.components.items()
    }
    # A local deployment's time is this device's clock: against the cloud's it would make later revisions stale.
    created_ms = last_created_ms(tree, wanted.group) if document.is_local(wanted) else wanted.created_ms
    last = {"timestamp": created_ms, "configArn": wanted.configuration_arn}
    tree, _ = configuration.replace(tree, (*GROUPS, wanted.group), members, stamp, "nucleus")
    tree, _ = configuration.replace(tree, (*LAST, wanted.group), last, stamp, "nucleus")
    for group in sorted(leaving):
        tree, _ = configuration.remove(tree, (*GROUPS, group), stamp)
    gone = [configuration.Change((SERVICES, name), stamp=stamp, removed=True) for name in sorted(removed)]
    return configuration.diff(before, configuration.apply(tree, gone))


def last_created_ms(tree: configuration.Tree, group: str) -> int:
    """Creation time of the newest deployment that was processed for a group, 0 for none (stale check, spec 5.6)."""
    found = _plain(tree, (*LAST, group)).get("timestamp", 0)
    return int(found)


def _configure(
    tree: configuration.Tree,
    name: str,
    one: negotiate.Candidate,
    wish: document.Wish | None,
    stamp: int,
    origin: str,
) -> configuration.Tree:
    base = (SERVICES, name, "configuration")
    _, changes = configuration.reset_and_merge(
        configuration.subtree(tree, base),
        one.recipe.configuration,
        wish.reset if wish is not None else (),
        (wish.merge or {}) if wish is not None else {},
        stamp,
        origin,
    )
    return configuration.apply(tree, configuration.under(base, changes))


def _interpolated(
    tree: configuration.Tree, one: negotiate.Candidate, known: Mapping[str, interpolate.Known], device: Device
) -> configuration.Tree:
    """System variables put into what recipe and deployments configured; what a component wrote stays as it is."""
    base = (SERVICES, one.name, "configuration")
    system = interpolate.System(root_path=device.root_path, thing_name=device.thing_name)
    changes = [
        configuration.Change(path, value, leaf.stamp, leaf.origin)
        for path, leaf in configuration.leaves(configuration.subtree(tree, base))
        if not leaf.origin.startswith("component:")
        and (value := interpolate.configured(one.name, leaf.value, known, system, tuple(one.recipe.dependencies)))
        != leaf.value
    ]
    return configuration.apply(tree, configuration.under(base, changes))


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
            marram=_care(one, known[one.name].configuration),
        ),
        left,
    )


def _care(one: negotiate.Candidate, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The component's configuration key `marram`, checked before anything is changed. Raises NucleusError."""
    found = settings.get(care.KEY) or {}
    try:
        care.read(found)
    except care.NotValid as error:
        why = f"cannot configure {one.name} {one.version}: {error}"
        raise errors.NucleusError("COMPONENT_CONFIGURATION_NOT_VALID", why) from None
    return dict(found)


def _run_with(tree: configuration.Tree, name: str, wanted: document.Document) -> component.RunWith:
    """A cloud document that leaves the user out clears it; a local one changes it only if given (spec 4.5)."""
    wish = wanted.components.get(name)
    if wish is not None and wish.run_with is not None:
        return wish.run_with
    if wish is not None and wanted.group != document.LOCAL_GROUP:
        return component.RunWith()
    before = _plain(tree, (SERVICES, name, "runWith"))
    return msgspec.convert(before, component.RunWith) if before else component.RunWith()


def _record(tree: configuration.Tree, record: component.Component, stamp: int, origin: str) -> configuration.Tree:
    """Writes one component's record; keys that are gone are removed, equal ones stay untouched."""
    fields: dict[str, Any] = {
        "version": record.version,
        "componentType": record.component_type,
        "dependencies": record.dependencies,
        "lifecycle": record.lifecycle,
        "runWith": msgspec.to_builtins(record.run_with),
    }
    if record.marram or _plain(tree, (SERVICES, record.name, "marram")):
        fields["marram"] = record.marram
    for key, value in fields.items():
        path = (SERVICES, record.name, key)
        if _get(tree, path) != value:
            tree, _ = configuration.replace(tree, path, value, stamp, origin)
    return tree


def _get(tree: configuration.Tree, path: configuration.Path) -> Any:
    try:
        return configuration.get(tree, path)
    except KeyError:
        return None


def _plain(tree: configuration.Tree, path: configuration.Path) -> dict[str, Any]:
    found = _get(tree, path)
    return found if isinstance(found, dict) else {}
