"""The configuration tree: every leaf has a value, a time stamp and an origin; the last writer wins, leaf by leaf.

Rules (spec/nucleus.md 4.1): names match whatever their case and keep their first spelling; lists are leaves; a write
counts only if its stamp is at least that of what it replaces, else it is dropped silently. Trees never change: an update
returns a new tree, and the changes that lead to it. Empty objects are trees without names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core import configuration_tree, errors, values

# The tree's own words, named here because everybody but `configuration_tree` says configuration.Tree.
Path = configuration_tree.Path
Leaf = configuration_tree.Leaf
Tree = configuration_tree.Tree
Node = configuration_tree.Node
Change = configuration_tree.Change
EMPTY = configuration_tree.EMPTY
find = configuration_tree.find
diff = configuration_tree.diff
newest = configuration_tree.newest
Updated = tuple[Tree, tuple[Change, ...]]

DEFAULT_STAMP = 1  # of recipe defaults, so that everything else is newer
DEFAULT_ORIGIN = "default"
LIMIT_DEPTH = 100  # of names below each other; nothing that is configured comes near


def get(tree: Tree, path: Path = ()) -> Any:
    """Plain values at `path`, the caller's own copy. Raises KeyError."""
    node = find(tree, path)
    if node is None:
        raise KeyError("/".join(path))
    return plain(node)


def leaf(tree: Tree, path: Path) -> Leaf:
    """The leaf at `path`. Raises KeyError if there is none or a tree."""
    node = find(tree, path)
    if not isinstance(node, Leaf):
        raise KeyError("/".join(path))
    return node


def subtree(tree: Tree, path: Path) -> Tree:
    """The tree at `path`; empty if there is none."""
    node = find(tree, path)
    return node if isinstance(node, Tree) else EMPTY


def plain(node: Node) -> Any:
    if isinstance(node, Leaf):
        return values.copied(node.value)
    return {name: plain(child) for name, child in node.nodes.values()}


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf with its path, spelled as in the tree."""
    if isinstance(node, Leaf):
        yield path, node
        return
    for name, child in node.nodes.values():
        yield from leaves(child, (*path, name))


def merge(tree: Tree, path: Path, value: Any, stamp: int, origin: str) -> Updated:
    """Writes `value` at `path`: objects name by name, everything else as one leaf. Older than what is there: no change.

    Raises NucleusError COMPONENT_CONFIGURATION_NOT_VALID if it is nested too deep.
    """
    return _put(tree, path, value, _Write(stamp, origin))


def replace(tree: Tree, path: Path, value: Any, stamp: int, origin: str) -> Updated:
    """As `merge`, and removes what is below `path` but not in `value`, unless it is newer than `stamp`.

    Names below `path` get the spelling of `value`: they may be variables of an environment.
    """
    return _put(tree, path, value, _Write(stamp, origin, removing=True))


def remove(tree: Tree, path: Path, stamp: int) -> Updated:
    """Removes the node at `path`; leaves newer than `stamp` stay, with the way to them."""
    node = find(tree, path)
    if node is None:
        return tree, ()
    left = _survivors(node, stamp)
    changed = configuration_tree.without(tree, path) if left is None else configuration_tree.placed(tree, path, left)
    return changed, diff(tree, changed)


def apply(tree: Tree, changes: Iterable[Change]) -> Tree:
    """Replays changes unconditionally, whatever their stamps. A value that is an object is written name by name."""
    for change in changes:
        if change.removed:
            tree = configuration_tree.without(tree, change.path)
            continue
        write = _Write(change.stamp, change.origin, forced=True)
        tree = configuration_tree.placed(tree, change.path, _merged(find(tree, change.path), change.value, write))
    return tree


def reset_and_merge(
    running: Tree | Mapping[str, Any],
    defaults: Mapping[str, Any],
    reset: Iterable[str],
    merging: Mapping[str, Any],
    stamp: int,
    origin: str,
) -> Updated:
    """One component's configuration after a deployment (spec/nucleus.md 4.4); paths start at its `configuration`.

    First each JSON pointer of `reset` is removed (`""` is everything, unknown ones are ignored), then the recipe's defaults
    fill what is missing, then `merging` is merged. Leaves newer than `stamp` win over the deployment, leaf by leaf.
    """
    before = running if isinstance(running, Tree) else merge(EMPTY, (), running, 0, "")[0]
    tree = before
    for pointer in reset:
        path = values.pointer(pointer)
        if path is not None:
            tree, _ = remove(tree, path, stamp)
    tree = _filled(tree, defaults)
    tree, _ = merge(tree, (), merging, stamp, origin)
    return tree, diff(before, tree)


def under(prefix: Path, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The same changes with their paths below `prefix`."""
    return tuple(msgspec.structs.replace(change, path=(*prefix, *change.path)) for change in changes)


class _Write(Struct, frozen=True):
    """Who writes and how: `removing` what the value does not name; `forced` whatever the stamps are."""

    stamp: int
    origin: str
    removing: bool = False
    forced: bool = False

    def loses(self, node: Node | None) -> bool:
        return node is not None and not self.forced and newest(node) > self.stamp


def _put(tree: Tree, path: Path, value: Any, write: _Write) -> Updated:
    _check(path, value)
    for length in range(1, len(path)):
        above = find(tree, path[:length])
        if isinstance(above, Leaf) and write.loses(above):
            return tree, ()
    node = find(tree, path)
    written = _merged(node, value, write)
    if written is node:
        return tree, ()
    changed = configuration_tree.placed(tree, path, written)
    return changed, diff(tree, changed)


def _check(path: Path, value: Any) -> None:
    why = ""
    if not path and not isinstance(value, Mapping):
        why = "the whole configuration must be an object"
    elif values.is_deeper(value, LIMIT_DEPTH - len(path)):
        why = f"it is nested deeper than {LIMIT_DEPTH} levels"
    if why:
        detail = f"cannot write configuration {'/'.join(path[:8])}: {why}"
        raise errors.NucleusError("COMPONENT_CONFIGURATION_NOT_VALID", detail)


def _merged(node: Node | None, value: Any, write: _Write) -> Node:
    """The node after the write; the very same node if the write loses or changes nothing."""
    if not isinstance(value, Mapping):
        return _written(node, Leaf(values.copied(value), write.stamp, write.origin), write)
    if isinstance(node, Leaf) and write.loses(node):
        return node
    before = node if isinstance(node, Tree) else None
    nodes = dict(before.nodes) if before else {}
    for name, child in value.items():
        spelled, there = nodes.get(name.lower(), (name, None))
        nodes[name.lower()] = (name if write.removing else spelled, _merged(there, child, write))
    if write.removing:
        nodes = _kept(nodes, {name.lower() for name in value}, write.stamp)
    return before if before is not None and _alike(before.nodes, nodes) else Tree(nodes)


def _written(node: Node | None, new: Leaf, write: _Write) -> Node:
    if node is not None and (write.loses(node) or configuration_tree.is_leaf(node, new)):
        return node
    return new


def _kept(nodes: Mapping[str, tuple[str, Node]], named: Iterable[str], stamp: int) -> dict[str, tuple[str, Node]]:
    """The named nodes, and of the others what is newer than `stamp`."""
    kept: dict[str, tuple[str, Node]] = {}
    for key, (name, node) in nodes.items():
        left = node if key in named else _survivors(node, stamp)
        if left is not None:
            kept[key] = (name, left)
    return kept


def _survivors(node: Node, stamp: int) -> Node | None:
    """What is left of a node when everything up to `stamp` is removed; None if nothing."""
    if isinstance(node, Leaf):
        return node if node.stamp > stamp else None
    kept = _kept(node.nodes, (), stamp)
    return Tree(kept) if kept else None


def _filled(tree: Tree, defaults: Mapping[str, Any]) -> Tree:
    """Adds what is missing; what is there stays, whatever it is."""
    write = _Write(DEFAULT_STAMP, DEFAULT_ORIGIN)
    nodes = dict(tree.nodes)
    for name, value in defaults.items():
        spelled, there = nodes.get(name.lower(), (name, None))
        if there is None:
            nodes[name.lower()] = (spelled, _merged(None, value, write))
        elif isinstance(there, Tree) and isinstance(value, Mapping):
            nodes[name.lower()] = (spelled, _filled(there, value))
    return tree if _alike(tree.nodes, nodes) else Tree(nodes)


def _alike(one: Mapping[str, tuple[str, Node]], other: Mapping[str, tuple[str, Node]]) -> bool:
    """Whether both have the same names, in the same spelling, and the very same nodes."""
    return one.keys() == other.keys() and all(
        one[key][0] == other[key][0] and one[key][1] is other[key][1] for key in one
    )
