"""The shape of the configuration tree: an immutable tree with case-insensitive names, and what differs between two.

Names keep their first spelling; an update shares what stayed the same. When a write counts is decided in `configuration`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from nucleus.core import values

Path = tuple[str, ...]


class Leaf(Struct, frozen=True):
    """`value` is null, a truth value, a number, a text or a list; `stamp` is in ms; `origin` names the writer.

    Origins: "default", "deployment:<id>", "component:<name>", "nucleus", "file".
    """

    value: Any
    stamp: int
    origin: str


class Tree(Struct, frozen=True):
    """Interior node: lower-cased name -> (name as first written, node)."""

    nodes: dict[str, tuple[str, Tree | Leaf]] = {}


class Change(Struct, frozen=True, omit_defaults=True):
    """One leaf written, one empty object made (value `{}`), or one node removed with everything below it."""

    path: Path
    value: Any = None
    stamp: int = 0
    origin: str = ""
    removed: bool = False


Node = Tree | Leaf
EMPTY = Tree()


def find(tree: Tree, path: Path) -> Node | None:
    """The node at `path`, or None."""
    node: Node = tree
    for name in path:
        entry = node.nodes.get(name.lower()) if isinstance(node, Tree) else None
        if entry is None:
            return None
        node = entry[1]
    return node


def newest(node: Node) -> int:
    """The highest stamp in the node; 0 if it has no leaf."""
    if isinstance(node, Leaf):
        return node.stamp
    return max((newest(child) for _, child in node.nodes.values()), default=0)


def placed(tree: Tree, path: Path, node: Node) -> Tree:
    """The tree with `node` at `path`; a leaf on the way gives way to a tree."""
    if not path:
        assert isinstance(node, Tree)
        return node
    spelled, there = tree.nodes.get(path[0].lower(), (path[0], EMPTY))
    inner = node if len(path) == 1 else placed(there if isinstance(there, Tree) else EMPTY, path[1:], node)
    return Tree({**tree.nodes, path[0].lower(): (spelled, inner)})


def without(tree: Tree, path: Path) -> Tree:
    """The tree without the node at `path`; an object that lost its last name stays, empty."""
    if not path:
        return EMPTY
    parent = find(tree, path[:-1])
    if not isinstance(parent, Tree) or path[-1].lower() not in parent.nodes:
        return tree
    nodes = {key: entry for key, entry in parent.nodes.items() if key != path[-1].lower()}
    return placed(tree, path[:-1], Tree(nodes))


def is_leaf(node: Node | None, leaf_: Leaf) -> bool:
    """Whether the node is a leaf equal in value, stamp and origin."""
    alike = isinstance(node, Leaf) and (node.stamp, node.origin) == (leaf_.stamp, leaf_.origin)
    return alike and isinstance(node, Leaf) and values.same(node.value, leaf_.value)


def diff(old: Tree, new: Tree, path: Path = ()) -> tuple[Change, ...]:
    """The fewest changes that lead from `old` to `new`; costs only what differs, thanks to sharing."""
    if old is new:
        return ()
    changes: list[Change] = []
    for key, (name, node) in old.nodes.items():
        there = new.nodes.get(key)
        if there is None or there[0] != name:
            changes.append(Change((*path, name), stamp=newest(node), removed=True))
    for key, (name, node) in new.nodes.items():
        before = old.nodes.get(key)
        was = before[1] if before is not None and before[0] == name else None
        changes += _node_diff(was, node, (*path, name))
    return tuple(changes)


def _node_diff(was: Node | None, node: Node, path: Path) -> tuple[Change, ...]:
    if was is node:
        return ()
    if isinstance(node, Leaf):
        return () if is_leaf(was, node) else (Change(path, values.copied(node.value), node.stamp, node.origin),)
    if isinstance(was, Tree):
        return diff(was, node, path)
    if not node.nodes:
        return (Change(path, {}),)
    return tuple(change for name, child in node.nodes.values() for change in _node_diff(None, child, (*path, name)))
