"""The device's configuration as last made durable: one tree, one journal, one owner.

Layout of a journal record: `{"changes": [[path, value, stamp, origin] | [path, stamp], …], "highest": stamp}` (four
members write a leaf, two remove a node; `highest` is the highest stamp seen, where no change tells it). Nodes whose name,
or an ancestor's, starts with `_` are kept in memory only (spec/nucleus.md 4.1). A commit is one record: after a crash all
of it is there, or nothing.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nucleus.core import configuration, errors, values
from nucleus.host import files, journal

LIMIT_RECORDS = 15_000  # the original's limit before it writes the tree anew
LIMIT_BYTES = 8 << 20
ASTRAY_S = 60.0  # a wall clock this far behind the stamps has been set back, or they were made by one that ran ahead
DERIVED_KEPT = 1024
_SNAPSHOT_CHANGES = 1_000  # per record, so that no line grows without bound

T = TypeVar("T")
Watcher = Callable[[tuple[configuration.Change, ...]], None]


class ConfigurationStore:
    """The tree and its journal in `directory`; `clock` gives epoch seconds. Call `open` first."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.tree = configuration.EMPTY
        self._derived: dict[Hashable, Any] = {}
        self._path = directory / "configuration.journal"
        self._clock = clock
        self._highest = 0
        self._watchers: dict[object, tuple[configuration.Path, Watcher]] = {}
        self._unheard: deque[tuple[configuration.Change, ...]] = deque()
        self._telling = False
        self._compact_at = LIMIT_RECORDS
        self._compact_at_bytes = LIMIT_BYTES
        self._journal: journal.Journal | None = None

    def open(self) -> str:
        """Reads the journal; returns what had to be repaired, or "". Raises NucleusError if the disk does not let us."""
        files.make_directory(self._path.parent)
        self._journal, records, repaired = journal.Journal.open(self._path)
        unknown = 0
        for record in records:
            try:
                changes, highest = _decode(record)
                self._take(configuration.apply(self.tree, changes), changes, highest)
            except (KeyError, TypeError, ValueError):
                unknown += 1
        if unknown:
            told = f"{self._path}: left out {unknown} records that are not changes of a configuration"
            repaired = f"{repaired}; {told}" if repaired else told
        return repaired

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key since the last commit; it must be left as it is. What `make` raises is not kept."""
        try:
            found: T = self._derived[key]
        except KeyError:
            found = make()
            if len(self._derived) >= DERIVED_KEPT:
                self._derived.clear()
            self._derived[key] = found
        return found

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def now(self) -> int:
        """A stamp in ms: the wall clock's, but always above every stamp seen, so that the clock may jump back."""
        self._highest = max(int(self._clock() * 1000), self._highest + 1)
        return self._highest

    def wall_s(self) -> float:
        """Epoch seconds by this device's clock, right or wrong."""
        return self._clock()

    def is_astray(self) -> bool:
        """Whether stamps lie in the clock's future: then nothing tells what was before or after a moment of the cloud's."""
        return self._highest - self._clock() * 1000 > ASTRAY_S * 1000

    def commit(self, changes: Sequence[configuration.Change]) -> None:
        """Makes the changes durable as one record, applies them, then tells the watchers. No changes: nothing happens.

        Raises NucleusError (nothing changed then) IO_WRITE_ERROR or DISK_SPACE_CRITICAL.
        """
        if not changes:
            return
        before = self.tree
        after = configuration.apply(before, changes)  # first, so that nothing is written that cannot be applied again
        kept = [change for change in changes if not _is_private(change.path)]
        if kept:
            self._opened().append(_encode(kept))
        self._take(after, changes)
        self._unheard.append(tuple(change for change in changes if _changes_values(before, change)))
        self._compact_if_long()
        self._tell()

    def watch(self, prefix: configuration.Path, callback: Watcher) -> Callable[[], None]:
        """Calls back with the changed values at, below or above `prefix` after each commit, until the result is called.

        Writes that leave a value as it is are not told. Callbacks run inside `commit` and must not raise; a commit made
        by one of them is told after the present one.
        """
        key = object()
        self._watchers[key] = (prefix, callback)

        def cancel() -> None:
            self._watchers.pop(key, None)

        return cancel

    def component(self, name: str) -> dict[str, Any]:
        """The plain configuration of a component, the caller's own copy; empty if it has none."""
        tree = configuration.subtree(self.tree, ("services", name, "configuration"))
        plain: dict[str, Any] = configuration.plain(tree)
        return plain

    def compact(self) -> None:
        """Rewrites the journal as the present tree. Raises NucleusError IO_WRITE_ERROR or DISK_SPACE_CRITICAL."""
        everything = configuration.diff(configuration.EMPTY, self.tree)
        kept = [change for change in everything if not _is_private(change.path)]
        parts = range(0, len(kept), _SNAPSHOT_CHANGES)
        rows = [_encode(kept[start : start + _SNAPSHOT_CHANGES]) for start in parts]
        self._opened().rewrite([_encode((), self._highest), *rows])
        self._compact_at = self._opened().length + LIMIT_RECORDS
        self._compact_at_bytes = max(LIMIT_BYTES, 2 * self._opened().size_bytes)

    def _opened(self) -> journal.Journal:
        assert self._journal is not None, "open the configuration store first"
        return self._journal

    def _take(self, tree: configuration.Tree, changes: Sequence[configuration.Change], highest: int = 0) -> None:
        self.tree = tree
        self._derived.clear()
        self._highest = max([self._highest, highest, *(change.stamp for change in changes)])

    def _compact_if_long(self) -> None:
        opened = self._opened()
        if opened.length < self._compact_at and opened.size_bytes < self._compact_at_bytes:
            return
        try:
            self.compact()
        except errors.NucleusError:  # the commit itself is durable; a full disk may be better later
            self._compact_at = opened.length + LIMIT_RECORDS // 2
            self._compact_at_bytes = opened.size_bytes + LIMIT_BYTES // 2

    def _tell(self) -> None:
        if self._telling:
            return
        self._telling = True
        try:
            while self._unheard:
                self._tell_of(self._unheard.popleft())
        finally:
            self._telling = False

    def _tell_of(self, changes: tuple[configuration.Change, ...]) -> None:
        for prefix, callback in tuple(self._watchers.values()):
            heard = tuple(change for change in changes if _touches(change.path, prefix))
            if heard:
                callback(heard)


def path(directory: Path) -> Path:
    """Where the journal of a configuration lies."""
    return directory / "configuration.journal"


def read(records: Iterable[bytes]) -> tuple[configuration.Tree, int]:
    """The tree that a journal's records make, and how many records are not changes as this release knows them."""
    tree, unknown = configuration.EMPTY, 0
    for record in records:
        try:
            tree = configuration.apply(tree, _decode(record)[0])
        except (KeyError, TypeError, ValueError):
            unknown += 1
    return tree, unknown


def _is_private(path: configuration.Path) -> bool:
    return any(name.startswith("_") for name in path)


def _public(value: Any) -> Any:
    """An object without its private names; everything else as it is."""
    if not isinstance(value, dict):
        return value
    return {name: _public(child) for name, child in value.items() if not name.startswith("_")}


def _touches(path: configuration.Path, prefix: configuration.Path) -> bool:
    """Whether a change at `path` may change what is at `prefix`."""
    return all(one.lower() == other.lower() for one, other in zip(path, prefix, strict=False))


def _changes_values(before: configuration.Tree, change: configuration.Change) -> bool:
    node = configuration.find(before, change.path)
    if change.removed:
        return node is not None
    if change.value == {}:
        return isinstance(node, configuration.Leaf)  # a new empty branch is no news
    return not isinstance(node, configuration.Leaf) or not values.same(node.value, change.value)


def _encode(changes: Iterable[configuration.Change], highest: int = 0) -> bytes:
    """One record. The standard library's JSON, because components may write lone surrogates and numbers of any size."""
    rows = [
        [change.path, change.stamp]
        if change.removed
        else [change.path, _public(change.value), change.stamp, change.origin]
        for change in changes
    ]
    record = {"changes": rows, "highest": highest} if highest else {"changes": rows}
    return json.dumps(record, separators=(",", ":")).encode()


def _decode(record: bytes) -> tuple[tuple[configuration.Change, ...], int]:
    """The changes and the highest stamp told. Raises ValueError, TypeError or KeyError for what is no such record."""
    read = json.loads(record)
    return tuple(_change(*row) for row in read["changes"]), int(read.get("highest", 0))


def _change(path: list[str], *rest: Any) -> configuration.Change:
    if len(rest) == 1:
        return configuration.Change(tuple(path), stamp=rest[0], removed=True)
    value, stamp, origin = rest
    return configuration.Change(tuple(path), value, stamp, origin)
