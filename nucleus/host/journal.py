"""An append-only file of records, each durable before `append` returns.

Layout: one line per record, `<crc32 of the record, 8 hex digits> <record>\n`; a record is JSON without a line feed.
A crash can tear only the last line: `open` cuts it off and tells so. A damaged line elsewhere (a failing disk) is left
out, the rest is kept, and the whole damaged file is put aside as `<name>.damaged` for people to look at.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from nucleus.core import errors
from nucleus.host import files


class Journal:
    """One open journal; it has one owner, which alone appends."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int, length: int) -> None:
        self.path = path
        self.size_bytes = size_bytes  # of whole, durable records
        self.length = length  # records in the file
        self._descriptor = descriptor
        self._torn = False  # half a line may lie behind the last record

    @staticmethod
    def open(path: Path) -> tuple[Journal, list[bytes], str]:
        """Opens or makes the journal: (journal, its records, what was repaired or "").

        Raises NucleusError IO_READ_ERROR or IO_WRITE_ERROR.
        """
        data = _read(path)
        records, torn_at, damaged = _parse(data)
        repaired = ""
        if damaged:
            aside = path.with_name(path.name + ".damaged")
            files.write_durably(aside, data)
            files.write_durably(path, _encode(records))
            repaired = (
                f"{path}: left out {damaged} damaged records of {damaged + len(records)}; the file as it was is {aside}"
            )
        elif torn_at < len(data):
            repaired = f"{path}: cut off {len(data) - torn_at} bytes of a record that was not written to its end"
        with files.writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            size_bytes = torn_at if not damaged else os.fstat(descriptor).st_size
            os.ftruncate(descriptor, size_bytes)
            os.fsync(descriptor)
            files.sync_directory(path.parent)
        return Journal(path, descriptor, size_bytes, len(records)), records, repaired

    def append(self, record: bytes) -> None:
        """Adds one record and makes it durable; on error the journal is as before.

        Raises NucleusError IO_WRITE_ERROR or DISK_SPACE_CRITICAL.
        """
        line = _line(record)
        with files.writing(self.path):
            if self._torn:
                self._cut()
            try:
                files.write_all(self._descriptor, line)
                os.fsync(self._descriptor)
            except OSError:
                self._torn = True  # a later record must not follow half a line
                self._cut()
                raise
        self.size_bytes += len(line)
        self.length += 1

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self.size_bytes)
        self._torn = False

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replaces all records by these, atomically. Raises NucleusError IO_WRITE_ERROR or DISK_SPACE_CRITICAL."""
        kept = list(records)
        data = _encode(kept)
        files.write_durably(self.path, data)
        with files.writing(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.close(self._descriptor)
        self._descriptor, self.size_bytes, self.length, self._torn = descriptor, len(data), len(kept), False

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> list[bytes]:
    """The whole records of a journal as it is now, nothing repaired; another process may be writing it.

    Raises NucleusError IO_READ_ERROR.
    """
    return _parse(_read(path))[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise errors.NucleusError("IO_READ_ERROR", f"cannot read {path}: {error.strerror}") from error


def _line(record: bytes) -> bytes:
    if b"\n" in record:
        raise ValueError("a record must not hold a line feed")
    return b"%08x %s\n" % (zlib.crc32(record), record)


def _encode(records: Iterable[bytes]) -> bytes:
    return b"".join(_line(record) for record in records)


def _parse(data: bytes) -> tuple[list[bytes], int, int]:
    """(whole records, where a torn tail begins, number of damaged lines before the last good one)."""
    records: list[bytes] = []
    position = good_end = bad = damaged = 0
    for line in data.split(b"\n")[:-1]:
        position += len(line) + 1
        record = line[9:]
        if len(line) >= 9 and line[:9] == b"%08x " % zlib.crc32(record):
            records.append(record)
            good_end, damaged = position, damaged + bad
            bad = 0
        else:
            bad += 1
    return records, good_end, damaged
