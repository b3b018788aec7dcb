"""The way back of a deployment's configuration: what it wrote goes, what components wrote since stays.

Invariant (issue "The device core"): the configuration is the committed state and every acknowledged write of a component.
"""

from __future__ import annotations

from collections.abc import Iterator

from nucleus.core import configuration


def still_ours(current: configuration.Tree, back: tuple[configuration.Change, ...]) -> tuple[configuration.Change, ...]:
    """Those changes of a way back that no component has overwritten since the commit, and what replaces the others.

    A component's acknowledged write survives a rollback, unless the whole component goes. Where the way back leads, the
    commit left leaves of the deployment only: what a component owns there now is newer, whatever its stamp says. Leaves of
    the deployment beside it go.
    """

    found: list[configuration.Change] = []
    for change in back:
        if len(change.path) <= 2 or not _written_since(current, change.path):
            found.append(change)
            continue
        node = configuration.find(current, change.path)
        ours = _of_nobody(node, change.path) if node is not None else ()
        found += [configuration.Change(path, stamp=change.stamp, removed=True) for path in ours]
    return tuple(found)


def _written_since(current: configuration.Tree, path: configuration.Path) -> bool:
    """Whether a component owns a leaf at, above or below `path`."""
    above = (configuration.find(current, path[:length]) for length in range(3, len(path)))
    node = configuration.find(current, path)
    below = configuration.leaves(node) if node is not None else ()
    found = [leaf for leaf in above if isinstance(leaf, configuration.Leaf)] + [leaf for _, leaf in below]
    return any(_is_components(leaf) for leaf in found)


def _of_nobody(node: configuration.Node, path: configuration.Path) -> Iterator[configuration.Path]:
    """The topmost nodes in which no component owns a leaf."""
    if not any(_is_components(leaf) for _, leaf in configuration.leaves(node)):
        yield path
    elif isinstance(node, configuration.Tree):
        for name, child in node.nodes.values():
            yield from _of_nobody(child, (*path, name))


def _is_components(leaf: configuration.Leaf) -> bool:
    return leaf.origin.startswith("component:")
