"""Which component versions stay in the store when a deployment has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nucleus.core import configuration, desired, lifecycle, status
from nucleus.store import deployments


def kept(
    records: Sequence[deployments.Record],
    tree: configuration.Tree,
    back: deployments.Record | None,
    running: Mapping[str, lifecycle.Health],
) -> dict[str, frozenset[str]]:
    """Versions by component: the installed ones, those one step back, those of the newest failed and of open deployments.

    `back` is the deployment that may still be regretted: what it replaced stays too, and so do those
    whose scripts may still be `running`, because their removal takes long.
    """
    ended = [one for one in records if one.result is not None]
    good = [one for one in ended if one.result and one.result.status == status.SUCCEEDED][-2:]
    queued = [one for one in records if one.result is None]
    wanted = [(name, one.version) for name, one in desired.installed(tree).items()]
    wanted += [(name, wish.version) for one in queued for name, wish in one.document.components.items()]
    for record in good + ended[-1:] + queued:
        wanted += [*record.resolved.items(), *record.taken, *((one.name, one.version) for one in record.answers)]
    if back is not None:
        wanted += [(name, one.version) for name, one in (back.previous or {}).items()]
    wanted += [(name, one.version) for name, one in running.items()]
    keep: dict[str, set[str]] = {}
    for name, version in wanted:
        keep.setdefault(name, set()).add(version)
    return {name: frozenset(versions) for name, versions in keep.items()}
