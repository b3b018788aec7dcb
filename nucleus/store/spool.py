"""Messages of components on their way to the cloud, in one SQLite file, numbered in their order.

WAL with synchronous=FULL: what `write` has taken is on the disk, also after a power cut; a removal that is lost means that a
message is sent twice, which QoS 1 allows. Each row has a checksum, for SQLite finds damage to its pages, not to their content.
One user at a time: all calls come from one thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core import errors
from nucleus.host import files

FILE = "spooler.db"
BUSY_S = 10.0
RESERVE_BYTES = 16 * 1024 * 1024  # left on the disk for everything else
OVERHEAD_BYTES = 64  # of a row
_SALVAGED_AT_ONCE = 100
_TABLE = """CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,
    qos INTEGER NOT NULL, properties BLOB NOT NULL, expires_ms INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL)"""
_COLUMNS = "number, topic, payload, qos, properties, expires_ms, size, crc"


class Row(Struct, frozen=True, kw_only=True):
    """A message; `expires_ms` is a time of the wall clock, 0 for never."""

    number: int
    topic: str
    payload: bytes
    qos: int = 1
    properties: dict[str, Any] = {}
    expires_ms: int = 0


class Totals(Struct, frozen=True):
    """Of all rows; `last` is the highest number, 0 without any."""

    count: int = 0
    size: int = 0
    last: int = 0


class Damaged(Exception):  # noqa: N818  the word says it
    """The file cannot be used any more; `open` sets it aside."""


def size(row: Row) -> int:
    """What a row counts against the bound, in bytes; the least is above 0."""
    return len(row.payload) + len(row.topic) + len(_packed(row)) + OVERHEAD_BYTES


class SpoolStore:
    """Every method raises NucleusError IO_READ_ERROR, IO_WRITE_ERROR or DISK_SPACE_CRITICAL, or Damaged."""

    def __init__(self, folder: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = folder / FILE
        self._reserve_bytes = reserve_bytes
        self._connection: sqlite3.Connection | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def open(self) -> tuple[Totals, str]:
        """Opens or makes the file: (what is in it, what was wrong with it or "").

        A damaged file is set aside, never deleted; what can be read of it is taken over.
        """
        self.close()
        files.make_directory(self.path.parent)
        try:
            self._connection = _connect(self.path)
        except sqlite3.OperationalError as error:  # no space, no permission: nothing is wrong with what is in it
            raise _cannot("open", self.path, error) from error
        except sqlite3.DatabaseError as error:
            with self._using("open"):
                aside = self._set_aside()
                self._connection = _connect(self.path)
                saved = self._salvage(aside)
            what = (
                f"the spool {self.path} is damaged ({error}); the file is kept as {aside.name}, {saved} messages saved"
            )
            return self._totals(), what
        return self._totals(), ""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, added: Sequence[Row], removed: Sequence[int] = ()) -> None:
        """All of it is durable when this returns, or nothing is changed."""
        with self._using("write"):
            database = self._database()
            if added and files.free_bytes(self.path.parent) < self._reserve_bytes:
                left = f"less than {self._reserve_bytes} bytes are left on the disk"
                raise errors.NucleusError("DISK_SPACE_CRITICAL", f"cannot write the spool {self.path}: {left}")
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany(
                    "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_values, added)
                )
                database.executemany("DELETE FROM messages WHERE number = ?", ((number,) for number in removed))
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    def page(self, after: int, limit: int, most_bytes: int) -> tuple[list[Row], list[tuple[int, int]]]:
        """The next rows in their order, at least one if there is any; of those with damaged content number and size."""
        query = f"SELECT {_COLUMNS} FROM messages WHERE number > ? ORDER BY number LIMIT ?"  # noqa: S608  our columns
        found: list[Row] = []
        damaged: list[tuple[int, int]] = []
        with self._using("read"), contextlib.closing(self._database().execute(query, (after, limit))) as cursor:
            for values in cursor:
                row = _row(values)
                if row is None:
                    damaged.append((values[0], values[6]))
                    continue
                found.append(row)
                most_bytes -= len(row.payload)
                if most_bytes <= 0:
                    break
        return found, damaged

    def shrink(self) -> None:
        """Gives the space of removed rows back to the file system."""
        with self._using("write"):
            self._database().executescript("PRAGMA incremental_vacuum")  # `execute` would free one page
            self._database().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _totals(self) -> Totals:
        with self._using("read"):
            query = "SELECT COUNT(*), COALESCE(SUM(size), 0), COALESCE(MAX(number), 0) FROM messages"
            return Totals(*self._database().execute(query).fetchone())

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise errors.NucleusError("IO_READ_ERROR", f"cannot use the spool {self.path}: it is not open")
        return self._connection

    def _set_aside(self) -> Path:
        aside = self.path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(FILE + suffix).rename(aside.with_name(aside.name + suffix))
        files.sync_directory(self.path.parent)
        return aside

    def _salvage(self, aside: Path) -> int:
        """Copies what can be read of a damaged file, from its beginning and from its end."""
        rows: list[Row] = []
        saved: set[int] = set()
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(aside)) as old:
            for row in _readable(old):
                if row.number in saved:
                    break  # the second direction has met the first
                saved.add(row.number)
                rows.append(row)
                if len(rows) >= _SALVAGED_AT_ONCE:
                    self.write(rows)
                    rows = []
        self.write(rows)
        return len(saved)

    @contextlib.contextmanager
    def _using(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise _cannot(verb, self.path, error) from error
        except sqlite3.DatabaseError as error:
            raise Damaged(f"cannot {verb} the spool {self.path}: {error}") from error


def _readable(old: sqlite3.Connection) -> Iterator[Row]:
    for direction in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            query = f"SELECT {_COLUMNS} FROM messages ORDER BY number {direction}"  # noqa: S608  our columns
            for values in old.execute(query):
                row = _row(values)
                if row is not None:
                    yield row


def _connect(path: Path) -> sqlite3.Connection:
    # The spool's one thread uses it, another one closes it at the end.
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL", "cache_size=-256"):
            database.execute(f"PRAGMA {pragma}").fetchall()
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        database.execute(_TABLE)
        database.execute(f"SELECT {_COLUMNS} FROM messages LIMIT 0")  # noqa: S608  our columns
        path.chmod(0o600)
        files.sync_directory(path.parent)
    except BaseException:
        database.close()
        raise
    return database


def _packed(row: Row) -> bytes:
    return msgspec.msgpack.encode(row.properties)


def _crc(number: int, topic: str, payload: bytes, packed: bytes) -> int:
    found = zlib.crc32(payload, zlib.crc32(topic.encode()))
    return zlib.crc32(packed, zlib.crc32(number.to_bytes(8, "big"), found))


def _values(row: Row) -> tuple[Any, ...]:
    packed = _packed(row)
    crc = _crc(row.number, row.topic, row.payload, packed)
    return (row.number, row.topic, row.payload, row.qos, packed, row.expires_ms, size(row), crc)


def _row(values: Sequence[Any]) -> Row | None:
    """None for one whose content is not what was written."""
    number, topic, payload, qos, packed, expires_ms, _, crc = values
    try:
        if crc != _crc(number, topic, payload, packed):
            return None
        properties = msgspec.msgpack.decode(packed, type=dict)
    except (msgspec.MsgspecError, AttributeError, TypeError, ValueError):
        return None
    return Row(number=number, topic=topic, payload=payload, qos=qos, properties=properties, expires_ms=expires_ms)


def _cannot(verb: str, path: Path, error: Exception) -> errors.NucleusError:
    full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    code = "DISK_SPACE_CRITICAL" if full else "IO_READ_ERROR" if verb == "read" else "IO_WRITE_ERROR"
    return errors.NucleusError(code, f"cannot {verb} the spool {path}: {error}")
