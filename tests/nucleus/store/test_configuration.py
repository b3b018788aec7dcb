"""The configuration store: durable commits, watchers, stamps, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleus.core import configuration, errors
from nucleus.store import configuration as store
from tests.nucleus.host import test_journal

Heard = list[list[tuple[configuration.Path, Any, bool]]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[store.ConfigurationStore]:
    made = store.ConfigurationStore(tmp_path)
    assert made.open() == ""
    yield made
    made.close()


def reopened(directory: Path) -> tuple[store.ConfigurationStore, str]:
    again = store.ConfigurationStore(directory)
    repaired = again.open()
    again.close()
    return again, repaired


def write(to: store.ConfigurationStore, path: configuration.Path, value: Any, stamp: int | None = None) -> None:
    _, changes = configuration.merge(to.tree, path, value, to.now() if stamp is None else stamp, "file")
    to.commit(changes)


def listen(to: store.ConfigurationStore, *prefix: str) -> Heard:
    heard: Heard = []
    to.watch(prefix, lambda changes: heard.append([(change.path, change.value, change.removed) for change in changes]))
    return heard


def test_open_when_committed_before_then_the_same_tree(opened: store.ConfigurationStore, tmp_path: Path) -> None:
    write(opened, ("services", "A", "configuration"), {"x": 1, "list": [1, {"y": None}], "empty": {}})
    write(opened, ("services", "A", "configuration", "gone"), 1)
    _, changes = configuration.remove(opened.tree, ("services", "a", "configuration", "gone"), opened.now())
    opened.commit(changes)

    again, repaired = reopened(tmp_path)

    assert repaired == ""
    assert again.tree == opened.tree
    assert again.component("a") == {"x": 1, "list": [1, {"y": None}], "empty": {}}
    assert again.component("B") == {}


def test_open_when_values_are_odd_then_kept_exactly(opened: store.ConfigurationStore, tmp_path: Path) -> None:
    odd = {"surrogate": "\ud800", "huge": 2**200, "float": 1.0, "true": True, "text": "\u2028\n"}
    write(opened, (), odd)

    found = configuration.get(reopened(tmp_path)[0].tree)

    assert found == odd
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in odd.items()}


def test_commit_when_names_begin_with_an_underscore_then_only_in_memory(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    write(opened, ("services", "A"), {"_private": {"x": 1}, "version": "1.0.0"})
    opened.commit([configuration.Change(("services", "B"), {"_private": 1, "version": "1.0.0"}, 5, "nucleus")])
    opened.compact()

    assert configuration.get(opened.tree, ("services", "A", "_private", "x")) == 1
    again = configuration.get(reopened(tmp_path)[0].tree)
    assert again == {"services": {"A": {"version": "1.0.0"}, "B": {"version": "1.0.0"}}}


def test_commit_when_the_disk_is_full_then_nothing_changed(opened: store.ConfigurationStore, tmp_path: Path) -> None:
    write(opened, ("a",), 1)
    before, heard = opened.tree, listen(opened)
    size = (tmp_path / "configuration.journal").stat().st_size

    with test_journal.full_disk(size + 3), pytest.raises(errors.NucleusError):
        write(opened, ("a",), 2)

    assert opened.tree is before
    assert heard == []
    assert reopened(tmp_path)[0].tree == before
    write(opened, ("a",), 3)
    assert configuration.get(reopened(tmp_path)[0].tree) == {"a": 3}


def test_commit_when_a_change_cannot_be_kept_then_nothing_is_written(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    for change in [configuration.Change((), 5), configuration.Change(("a",), object())]:
        with pytest.raises((AssertionError, TypeError)):
            opened.commit([change])

    assert opened.tree == configuration.EMPTY
    assert (tmp_path / "configuration.journal").read_bytes() == b""


def test_open_when_the_journal_is_torn_at_any_byte_then_a_commit_is_there_as_a_whole_or_not(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    states = [configuration.get(opened.tree)]
    for number in range(3):
        write(opened, (), {"number": number, "same": {"number": number}})
        states.append(configuration.get(opened.tree))
    path = tmp_path / "configuration.journal"
    data = path.read_bytes()

    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        again, repaired = reopened(tmp_path)

        whole = data[:length].count(b"\n")
        assert configuration.get(again.tree) == states[whole]
        assert (repaired == "") == (length == 0 or data[length - 1 : length] == b"\n")


def test_open_when_records_are_not_ours_then_left_out_and_told(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    write(opened, ("a",), 1)
    journal, _, _ = test_journal.journal.Journal.open(tmp_path / "configuration.journal")
    for record in [
        b"1",
        b"{}",
        b"[1]",
        b"no json",
        b'{"changes":[[1]]}',
        b'{"changes":[["a",1,2,3,4]]}',
        b'{"changes":5}',
    ]:
        journal.append(record)
    journal.close()

    again, repaired = reopened(tmp_path)

    assert configuration.get(again.tree) == {"a": 1}
    assert "left out 7 records" in repaired


def test_watch_when_values_change_then_told_at_below_and_above(opened: store.ConfigurationStore) -> None:
    heard = listen(opened, "Services", "a")
    write(opened, ("services", "A", "x"), 1)
    write(opened, ("services", "B", "x"), 1)
    opened.commit([configuration.Change(("services",), removed=True)])

    assert heard == [[(("services", "A", "x"), 1, False)], [(("services",), None, True)]]


def test_watch_when_nothing_changes_but_the_stamp_then_silent(opened: store.ConfigurationStore) -> None:
    write(opened, ("a",), {"x": 1, "l": [1]})
    heard = listen(opened)

    write(opened, ("a",), {"x": 1, "l": [1]})
    write(opened, ("a", "empty"), {})
    opened.commit([configuration.Change(("nothing",), removed=True)])

    assert heard == []
    write(opened, ("a", "x"), True)
    assert heard == [[(("a", "x"), True, False)]]


def test_watch_when_cancelled_then_silent(opened: store.ConfigurationStore) -> None:
    heard: list[object] = []
    cancel = opened.watch((), heard.append)
    cancel()
    cancel()

    write(opened, ("a",), 1)

    assert heard == []


def test_watch_when_a_watcher_commits_then_everybody_hears_in_order(opened: store.ConfigurationStore) -> None:
    opened.watch(("a",), lambda _: write(opened, ("b",), 2))
    heard = listen(opened)

    write(opened, ("a",), 1)

    assert heard == [[(("a",), 1, False)], [(("b",), 2, False)]]


def test_now_when_the_clock_jumps_back_then_still_above_everything_seen(tmp_path: Path) -> None:
    times = iter([100.0, 50.0, 50.0, 200.0])
    made = store.ConfigurationStore(tmp_path, lambda: next(times))
    made.open()

    assert [made.now() for _ in range(2)] == [100_000, 100_001]
    write(made, ("a",), 1, stamp=150_000)
    assert [made.now() for _ in range(2)] == [150_001, 200_000]
    made.close()


def test_now_when_reopened_after_removal_and_compaction_then_still_above(tmp_path: Path) -> None:
    made = store.ConfigurationStore(tmp_path, lambda: 1.0)
    made.open()
    write(made, ("a",), 1, stamp=500_000)
    made.commit(configuration.remove(made.tree, ("a",), 500_000)[1])
    made.compact()
    made.close()

    again = store.ConfigurationStore(tmp_path, lambda: 1.0)
    again.open()

    assert again.now() == 500_001
    again.close()


def test_compact_when_done_then_the_same_tree_in_less(opened: store.ConfigurationStore, tmp_path: Path) -> None:
    for number in range(50):
        write(opened, ("services", "A"), {"counter": number, "e": {}})
    before = (tmp_path / "configuration.journal").stat().st_size

    opened.compact()
    write(opened, ("after",), 1)

    assert (tmp_path / "configuration.journal").stat().st_size < before / 5
    assert reopened(tmp_path)[0].tree == opened.tree


def test_compact_when_the_tree_is_large_then_in_several_records(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    write(opened, (), {f"name{number}": number for number in range(2500)})
    opened.compact()

    assert (tmp_path / "configuration.journal").read_bytes().count(b"\n") == 4
    assert reopened(tmp_path)[0].tree == opened.tree


def test_commit_when_the_journal_grew_long_then_it_is_compacted(
    opened: store.ConfigurationStore, tmp_path: Path
) -> None:
    large = "x" * 1_000_000

    for number in range(12):
        write(opened, ("a",), f"{number}{large}")

    assert (tmp_path / "configuration.journal").stat().st_size < 6_000_000
    assert reopened(tmp_path)[0].tree == opened.tree


values = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abA"), inner, max_size=3),
)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abA"), min_size=1, max_size=2), values, st.integers(0, 4), st.booleans()),
        max_size=8,
    )
)
@settings(max_examples=40)
def test_commit_when_any_updates_follow_each_other_then_reopening_gives_the_tree(
    tmp_path_factory: pytest.TempPathFactory, updates: list[tuple[list[str], Any, int, bool]]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    made = store.ConfigurationStore(directory)
    made.open()

    for path, value, stamp, removing in updates:
        update = configuration.replace if removing else configuration.merge
        made.commit(update(made.tree, tuple(path), value, stamp, "x")[1])
    made.close()

    assert configuration.get(reopened(directory)[0].tree) == configuration.get(made.tree)
    assert dict(configuration.leaves(reopened(directory)[0].tree)) == dict(configuration.leaves(made.tree))


def test_derived_when_nothing_is_committed_then_made_once_and_anew_behind_a_commit(
    opened: store.ConfigurationStore,
) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [opened.derived("a", make), opened.derived("a", make), opened.derived("b", make)] == [1, 1, 2]
    write(opened, ("x",), 1)
    assert opened.derived("a", make) == 3


def test_derived_when_keys_are_many_then_bounded_and_an_error_is_not_kept(opened: store.ConfigurationStore) -> None:
    for number in range(store.DERIVED_KEPT * 2):
        opened.derived(number, lambda: 0)
    assert len(opened._derived) <= store.DERIVED_KEPT

    def refuse() -> int:
        raise KeyError("no")

    with pytest.raises(KeyError):
        opened.derived("a", refuse)
    assert opened.derived("a", lambda: 5) == 5
