"""The journal: what is appended is there after any crash, and damage is told."""

from __future__ import annotations

import resource
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleus.core import errors
from nucleus.host import journal

RECORDS = [b'{"a":1}', b"{}", b'{"text":"\xc3\xa9 and a longer one"}']


def write(path: Path, records: list[bytes]) -> bytes:
    opened, _, _ = journal.Journal.open(path)
    for record in records:
        opened.append(record)
    opened.close()
    return path.read_bytes()


def read(path: Path) -> tuple[list[bytes], str]:
    opened, records, repaired = journal.Journal.open(path)
    opened.close()
    return records, repaired


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files of this process grow beyond the limit, after writing what fits."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_open_when_the_file_is_new_then_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "journal") == ([], "")
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_append_when_opened_again_then_the_records_in_order(tmp_path: Path) -> None:
    write(tmp_path / "journal", RECORDS)
    write(tmp_path / "journal", [b"3"])

    assert read(tmp_path / "journal") == ([*RECORDS, b"3"], "")


def test_open_when_the_tail_is_torn_at_any_byte_then_the_whole_records_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    data = write(path, RECORDS)
    ends = [0, *(position + 1 for position, byte in enumerate(data) if byte == 0x0A)]

    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = sum(end <= length for end in ends) - 1
        records, repaired = read(path)

        assert records == RECORDS[:whole]
        assert (repaired == "") == (length in ends)
        assert path.read_bytes() == data[: ends[whole]]
        assert write(path, [b"after"]) == data[: ends[whole]] + b"%08x after\n" % zlib.crc32(b"after")


def test_open_when_the_tail_is_torn_then_told_with_path_and_size(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(write(path, RECORDS)[:-5])

    _, repaired = read(path)

    assert repaired.startswith(f"{path}: cut off ")
    assert read(path)[1] == ""


@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b"garbage\n", b"garbage\nmore", b"00000000 {}\n", b"\n", b"xyz", b"12345678\n"]
)
def test_open_when_the_tail_is_garbage_then_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal"
    data = write(path, RECORDS)
    path.write_bytes(data + tail)

    records, repaired = read(path)

    assert records == RECORDS
    assert f"cut off {len(tail)} bytes" in repaired
    assert path.read_bytes() == data


def test_open_when_a_record_in_the_middle_is_damaged_then_the_others_stay_and_the_file_is_put_aside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    data = write(path, RECORDS).replace(b'{"a":1}', b'{"a":2}')
    path.write_bytes(data)

    records, repaired = read(path)

    assert records == RECORDS[1:]
    assert "left out 1 damaged records of 3" in repaired
    assert (tmp_path / "journal.damaged").read_bytes() == data
    assert read(path) == (RECORDS[1:], "")


@given(st.binary(max_size=120))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
def test_open_when_the_file_holds_anything_then_it_opens_and_stays_open_able(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(data)

    records, _ = read(path)

    assert read(path) == (records, "")
    write(path, [b"next"])
    assert read(path) == ([*records, b"next"], "")


def test_append_when_the_disk_is_full_then_the_journal_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    opened, _, _ = journal.Journal.open(path)
    opened.append(RECORDS[0])
    before = path.read_bytes()

    with full_disk(len(before) + 7), pytest.raises(errors.NucleusError, match="cannot write") as caught:
        opened.append(RECORDS[2])

    assert caught.value.code == "IO_WRITE_ERROR"
    assert str(path) in caught.value.detail
    assert path.read_bytes() == before
    opened.append(RECORDS[1])
    opened.close()
    assert read(path) == (RECORDS[:2], "")


def test_append_when_a_record_holds_a_line_feed_then_refused(tmp_path: Path) -> None:
    opened, _, _ = journal.Journal.open(tmp_path / "journal")

    with pytest.raises(ValueError, match="line feed"):
        opened.append(b"a\nb")

    opened.close()


def test_rewrite_when_done_then_only_these_records_and_appends_go_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    opened, _, _ = journal.Journal.open(path)
    for record in RECORDS:
        opened.append(record)

    opened.rewrite([b"all in one"])
    opened.append(b"next")

    assert (opened.length, opened.size_bytes) == (2, path.stat().st_size)
    opened.close()
    assert read(path) == ([b"all in one", b"next"], "")
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_rewrite_when_the_disk_is_full_then_the_old_records_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    opened, _, _ = journal.Journal.open(path)
    opened.append(RECORDS[0])

    with full_disk(10), pytest.raises(errors.NucleusError):
        opened.rewrite([b"x" * 1000])
    opened.append(RECORDS[1])
    opened.close()

    assert read(path) == (RECORDS[:2], "")
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_open_when_the_directory_is_missing_then_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(errors.NucleusError, match=r"cannot write .*nowhere"):
        journal.Journal.open(tmp_path / "nowhere" / "journal")
