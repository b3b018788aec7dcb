"""The spool's file: what it keeps, in which order, and what becomes of it when it is damaged or the disk is full."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.core import errors
from nucleus.store import spool


@pytest.fixture
def store(tmp_path: Path) -> Iterator[spool.SpoolStore]:
    one = spool.SpoolStore(tmp_path / "work")
    one.open()
    yield one
    one.close()


def row(number: int, size: int = 10) -> spool.Row:
    properties = {"correlationData": b"\x00\xff", "userProperties": [{"key": "k", "value": "v"}]}
    return spool.Row(number=number, topic=f"t/{number}", payload=bytes(size), properties=properties, expires_ms=number)


def reopened(store: spool.SpoolStore) -> tuple[spool.Totals, str]:
    store.close()
    return store.open()


def numbers(store: spool.SpoolStore, after: int = 0) -> list[int]:
    return [one.number for one in store.page(after, 10_000, 10**9)[0]]


def test_write_when_opened_again_then_every_row_as_it_was_and_in_order(store: spool.SpoolStore) -> None:
    rows = [row(number) for number in (3, 1, 2)]
    store.write(rows)

    totals, wrong = reopened(store)

    assert (totals, wrong) == (spool.Totals(3, sum(map(spool.size, rows)), 3), "")
    assert store.page(0, 10, 10**9) == (sorted(rows, key=lambda one: one.number), [])
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_page_when_bounded_then_at_least_one_row_and_goes_on_behind_it(store: spool.SpoolStore) -> None:
    store.write([row(number, 1000) for number in range(1, 6)])

    assert [one.number for one in store.page(0, 2, 10**9)[0]] == [1, 2]
    assert [one.number for one in store.page(2, 10, 1)[0]] == [3]
    assert numbers(store, 3) == [4, 5]


def test_write_when_rows_are_removed_in_the_same_turn_then_gone(store: spool.SpoolStore) -> None:
    store.write([row(1), row(2)], [1])

    assert numbers(store) == [2]


def test_shrink_when_everything_was_sent_then_the_disk_has_its_space_again(store: spool.SpoolStore) -> None:
    store.write([row(number, 10_000) for number in range(1, 200)])
    store.write([], list(range(1, 200)))

    store.shrink()

    used = sum(one.stat().st_size for one in store.path.parent.iterdir() if not one.name.endswith("-shm"))
    assert used < 50_000


def test_open_when_the_file_is_no_database_then_set_aside_and_begun_anew(store: spool.SpoolStore) -> None:
    store.close()
    store.path.write_bytes(b"this is no database" * 100)

    totals, wrong = store.open()

    assert totals.count == 0
    assert "damaged" in wrong
    assert len(list(store.path.parent.glob("spooler.db.damaged-*"))) == 1
    store.write([row(1)])
    assert numbers(store) == [1]


def test_open_when_pages_are_damaged_then_what_can_be_read_is_taken_over(store: spool.SpoolStore) -> None:
    store.write([row(number, 1000) for number in range(1, 401)])
    store.close()
    data = bytearray(store.path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xa5" * 8192
    store.path.write_bytes(data)

    totals, wrong = store.open()

    assert f"{totals.count} messages saved" in wrong
    assert 300 < totals.count < 400
    assert numbers(store) == sorted(numbers(store))


def test_page_when_the_content_of_a_row_is_changed_then_told_and_the_others_read(store: spool.SpoolStore) -> None:
    """SQLite has no checksum over a payload."""
    store.write([row(1), row(2), row(3)])
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute("UPDATE messages SET payload = x'00' WHERE number = 2")
    database.close()
    store.open()

    rows, damaged = store.page(0, 10, 10**9)

    assert [one.number for one in rows] == [1, 3]
    assert damaged == [(2, spool.size(row(2)))]


def test_write_when_the_disk_is_full_then_told_and_nothing_is_changed(store: spool.SpoolStore) -> None:
    store.write([row(1)])
    pages = store._database().execute("PRAGMA page_count").fetchone()[0]
    store._database().execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(errors.NucleusError, match="database or disk is full") as caught:
        store.write([row(2, 100_000)])

    assert caught.value.code == "DISK_SPACE_CRITICAL"
    assert numbers(store) == [1]
    store._database().execute("PRAGMA max_page_count=100000")
    store.write([row(2, 100_000)])
    assert numbers(store) == [1, 2]


def test_open_when_the_folder_cannot_be_made_then_told(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")

    with pytest.raises(errors.NucleusError, match="cannot write"):
        spool.SpoolStore(tmp_path / "work").open()


def test_open_then_a_commit_waits_for_the_disk(store: spool.SpoolStore) -> None:
    assert store._database().execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store._database().execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
