"""Topics and topic filters: of local publish/subscribe and, with `mqtt=True`, of MQTT itself.

Both: levels are separated by `/`, `+` stands for one level, a last `#` for all that follow. They differ (spec/ipc.md
3.3): locally `a/#` does not match `a`, slashes at the end are dropped and `$` is an ordinary character; in MQTT `a/#`
matches `a`, every level counts, and a wildcard in the first level does not match topics that begin with `$`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

LIMIT_BYTES = 65_535  # a length field of MQTT has two bytes

V = TypeVar("V")


def matches(filter_: str, topic: str, *, mqtt: bool = False) -> bool:
    """Whether a topic, itself without wildcards, is in the filter."""
    wanted, given = _levels(filter_, mqtt=mqtt), _levels(topic, mqtt=mqtt)
    if mqtt and topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, level in enumerate(wanted):
        if level == "#" and position == len(wanted) - 1:
            return len(given) > position or (mqtt and len(given) == position)
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic of MQTT that is in the filter `narrow` is in `wide`, too; a shared subscription only covers itself."""
    if wide == narrow:
        return True
    if wide.startswith("$share/") or narrow.startswith("$share/"):
        return False
    wanted, given = wide.split("/"), narrow.split("/")
    if narrow.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return len(given) >= position
        if position >= len(given) or given[position] == "#" or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)


def has_wildcard(filter_: str) -> bool:
    return any(level in ("+", "#") for level in filter_.split("/"))


def is_filter(text: str) -> bool:
    """Whether MQTT allows it as a topic filter: wildcards are whole levels, `#` only the last one."""
    levels = text.split("/")
    if not _is_text(text) or any(level not in ("+", "#") and ("+" in level or "#" in level) for level in levels):
        return False
    return "#" not in levels[:-1]


def is_topic(text: str) -> bool:
    """Whether MQTT allows publishing to it."""
    return _is_text(text) and "+" not in text and "#" not in text


def _is_text(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= LIMIT_BYTES and "\0" not in text
    except UnicodeEncodeError:
        return False


def _levels(text: str, *, mqtt: bool) -> list[str]:
    return text.split("/") if mqtt else text.rstrip("/").split("/")


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: list[V] = []


class Trie(Generic[V]):
    """Values by topic filter; a match costs the levels of the topic, not the number of filters."""

    def __init__(self, *, mqtt: bool = False) -> None:
        self._mqtt = mqtt
        self._root: _Node[V] = _Node()

    def add(self, filter_: str, value: V) -> None:
        """Adds a value; one that is added twice is matched twice."""
        node = self._root
        for level in _levels(filter_, mqtt=self._mqtt):
            node = node.children.setdefault(level, _Node())
        node.values.append(value)

    def remove(self, filter_: str, value: V) -> bool:
        """Removes one such value of the filter; False if there was none."""
        way: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in _levels(filter_, mqtt=self._mqtt):
            if level not in node.children:
                return False
            way.append((node, level))
            node = node.children[level]
        if value not in node.values:
            return False
        node.values.remove(value)
        for parent, level in reversed(way):
            child = parent.children[level]
            if child.values or child.children:
                break
            del parent.children[level]
        return True

    def match(self, topic: str) -> list[V]:
        """The values of all filters the topic is in; of one filter in the order they were added."""
        return [value for node in self._nodes(topic) for value in node.values]

    def _nodes(self, topic: str) -> Iterator[_Node[V]]:
        reached = [self._root]
        hidden = self._mqtt and topic.startswith("$")
        for level in _levels(topic, mqtt=self._mqtt):
            following: list[_Node[V]] = []
            for node in reached:
                if "#" in node.children and not hidden:
                    yield node.children["#"]
                names = (level,) if hidden or level == "+" else (level, "+")
                following += [node.children[name] for name in names if name in node.children and name != "#"]
            reached, hidden = following, False
        for node in reached:
            yield node
            if self._mqtt and "#" in node.children:
                yield node.children["#"]
