"""The broker's table of subscriptions: from a topic to the subscribers whose filters match it.

Filters without wildcards are looked up in one dictionary, the others in a trie of levels, so a fleet that mostly
subscribes to its own topics costs little memory. `#` and `+` at the first level never match a topic that begins with
`$` (MQTT 5.0, 4.7.2). Subscribers are hashable and mean nothing here; so do the values kept for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
V = TypeVar("V")


class Group(Generic[S, V]):
    """The members of one shared subscription; each message goes to one of them in turn."""

    __slots__ = ("members", "turn")

    def __init__(self) -> None:
        self.members: dict[S, V] = {}
        self.turn = 0


class Leaf(Generic[S, V]):
    """The subscribers of one filter."""

    __slots__ = ("groups", "single")

    def __init__(self) -> None:
        self.single: dict[S, V] = {}
        self.groups: dict[str, Group[S, V]] | None = None

    @property
    def empty(self) -> bool:
        return not self.single and not self.groups


class _Node(Generic[S, V]):
    __slots__ = ("children", "leaf")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S, V]] = {}
        self.leaf: Leaf[S, V] | None = None


class Subscriptions(Generic[S, V]):
    """`group` is "" for an ordinary subscription, otherwise the name in `$share/<group>/<filter>`."""

    def __init__(self) -> None:
        self._exact: dict[str, Leaf[S, V]] = {}
        self._root: _Node[S, V] = _Node()

    def add(self, topic_filter: str, group: str, subscriber: S, value: V) -> bool:
        """Adds or replaces; True if the subscriber had no such subscription."""
        members = _members(self._leaf(topic_filter), group)
        is_new = subscriber not in members
        members[subscriber] = value
        return is_new

    def remove(self, topic_filter: str, group: str, subscriber: S) -> bool:
        """True if there was such a subscription."""
        if _has_wildcard(topic_filter):
            return self._remove_wildcard(self._root, topic_filter.split("/"), group, subscriber)
        leaf = self._exact.get(topic_filter)
        if leaf is None:
            return False
        removed = _discard(leaf, group, subscriber)
        if leaf.empty:
            del self._exact[topic_filter]
        return removed

    def match(self, topic: str) -> list[Leaf[S, V]]:
        """The leaves of every filter that matches the topic."""
        exact = self._exact.get(topic)
        found = [exact] if exact is not None else []
        if self._root.children:
            _collect(self._root, topic.split("/"), 0, found)
        return found

    def _leaf(self, topic_filter: str) -> Leaf[S, V]:
        if not _has_wildcard(topic_filter):
            return self._exact.setdefault(topic_filter, Leaf())
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        if node.leaf is None:
            node.leaf = Leaf()
        return node.leaf

    def _remove_wildcard(self, node: _Node[S, V], levels: list[str], group: str, subscriber: S) -> bool:
        path = [node]
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return False
            path.append(child)
        leaf = path[-1].leaf
        if leaf is None or not _discard(leaf, group, subscriber):
            return False
        if leaf.empty:
            path[-1].leaf = None
        for index in range(len(levels), 0, -1):
            if path[index].leaf is not None or path[index].children:
                break
            del path[index - 1].children[levels[index - 1]]
        return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether one filter matches one topic; used for retained messages."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    levels, names = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(names) or (level != "+" and level != names[index]):
            return False
    return len(levels) == len(names)


def pick(group: Group[S, V]) -> Iterator[tuple[S, V]]:
    """The members of a shared subscription, the one whose turn it is first; the next call begins with the next."""
    members = list(group.members.items())
    start = group.turn % len(members)
    group.turn = start + 1
    yield from members[start:]
    yield from members[:start]


def _has_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def _members(leaf: Leaf[S, V], group: str) -> dict[S, V]:
    if not group:
        return leaf.single
    if leaf.groups is None:
        leaf.groups = {}
    return leaf.groups.setdefault(group, Group()).members


def _discard(leaf: Leaf[S, V], group: str, subscriber: S) -> bool:
    if not group:
        return leaf.single.pop(subscriber, None) is not None
    members = leaf.groups.get(group) if leaf.groups else None
    if members is None or leaf.groups is None or subscriber not in members.members:
        return False
    del members.members[subscriber]
    if not members.members:
        del leaf.groups[group]
    return True


def _collect(node: _Node[S, V], names: list[str], at: int, found: list[Leaf[S, V]]) -> None:
    children = node.children
    wild = at > 0 or not names[0].startswith("$")
    rest = children.get("#") if wild else None
    if rest is not None and rest.leaf is not None:
        found.append(rest.leaf)
    if at == len(names):
        if node.leaf is not None:
            found.append(node.leaf)
        return
    child = children.get(names[at])
    if child is not None:
        _collect(child, names, at + 1, found)
    child = children.get("+") if wild else None
    if child is not None:
        _collect(child, names, at + 1, found)
