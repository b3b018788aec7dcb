"""Local shadows, and what is remembered of their synchronisation, in one SQLite file.

WAL with synchronous=FULL: what was answered with `accepted` is on the disk, also after a power cut; requests are limited to
some hundred per second, so one fsync each is affordable. A deleted shadow keeps its version: a client that knew it must not
overwrite its successor. One user at a time: the service calls from one thread of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from nucleus.core import errors, shadow, shadow_sync
from nucleus.host import files

FILE = "shadows.db"
BUSY_S = 10.0
_TABLES = (
    """CREATE TABLE IF NOT EXISTS shadows (thing TEXT NOT NULL, name TEXT NOT NULL, state BLOB NOT NULL,
    metadata BLOB NOT NULL, version INTEGER NOT NULL, updated_ms INTEGER NOT NULL, deleted INTEGER NOT NULL,
    PRIMARY KEY (thing, name)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS synced (thing TEXT NOT NULL, name TEXT NOT NULL, base BLOB,
    local_version INTEGER NOT NULL, cloud_version INTEGER NOT NULL, PRIMARY KEY (thing, name)) WITHOUT ROWID""",
)


class ShadowStore:
    """Every method raises NucleusError IO_READ_ERROR or IO_WRITE_ERROR when the file cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._connection: sqlite3.Connection | None = None

    def open(self) -> str:
        """Opens or makes the file; returns what was wrong with it, or "". A damaged file is set aside, never deleted."""
        self.close()
        files.make_directory(self._path.parent)
        try:
            self._connection = _connect(self._path)
        except sqlite3.OperationalError as error:  # no space, no permission: nothing is wrong with what is in it
            raise errors.NucleusError("IO_READ_ERROR", f"cannot open the shadows in {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            with _using(self._path, "open"):
                aside = self._set_aside()
                self._connection = _connect(self._path)
            return (
                f"the shadows in {self._path} are damaged ({error}); the file is kept as {aside.name}, all begin anew"
            )
        return ""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What is saved in the block is durable when it ends, or none of it was saved."""
        with _using(self._path, "write"):
            database = self._database()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    def find(self, thing: str, name: str) -> shadow.Shadow | None:
        """The shadow, also a deleted one; None if there never was one."""
        columns = "state, metadata, version, updated_ms, deleted"
        row = self._row(f"SELECT {columns} FROM shadows WHERE thing = ? AND name = ?", thing, name)  # noqa: S608
        if row is None:
            return None
        with _using(self._path, "read"):
            state, metadata = msgspec.json.decode(row[0], type=dict), msgspec.json.decode(row[1], type=dict)
        return shadow.Shadow(state, metadata, row[2], row[3], bool(row[4]))

    def save(self, thing: str, name: str, held: shadow.Shadow) -> None:
        """Within `writing`."""
        values = (msgspec.json.encode(held.state), msgspec.json.encode(held.metadata))
        self._database().execute(
            "INSERT OR REPLACE INTO shadows VALUES (?, ?, ?, ?, ?, ?, ?)",
            (thing, name, *values, held.version, held.updated_ms, held.deleted),
        )

    def names(self, thing: str, after: str, limit: int) -> list[str]:
        """Names of the thing's named shadows behind `after`, sorted."""
        query = "SELECT name FROM shadows WHERE thing = ? AND name > ? AND NOT deleted ORDER BY name LIMIT ?"
        with _using(self._path, "read"):
            return [row[0] for row in self._database().execute(query, (thing, after, limit))]

    def synced(self, thing: str, name: str) -> shadow_sync.Synced:
        """What is remembered of the last synchronisation; of none, an empty record."""
        columns = "base, local_version, cloud_version"
        row = self._row(f"SELECT {columns} FROM synced WHERE thing = ? AND name = ?", thing, name)  # noqa: S608
        if row is None:
            return shadow_sync.Synced()
        with _using(self._path, "read"):
            base = msgspec.json.decode(row[0], type=dict) if row[0] is not None else None
        return shadow_sync.Synced(base, row[1], row[2])

    def save_synced(self, thing: str, name: str, synced: shadow_sync.Synced) -> None:
        """Within `writing`."""
        base = msgspec.json.encode(synced.base) if synced.base is not None else None
        self._database().execute(
            "INSERT OR REPLACE INTO synced VALUES (?, ?, ?, ?, ?)",
            (thing, name, base, synced.local_version, synced.cloud_version),
        )

    def _row(self, query: str, *values: str) -> tuple[Any, ...] | None:
        with _using(self._path, "read"):
            found: tuple[Any, ...] | None = self._database().execute(query, values).fetchone()
            return found

    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise errors.NucleusError("IO_READ_ERROR", f"cannot use the shadows in {self._path}: they are not open")
        return self._connection

    def _set_aside(self) -> Path:
        aside = self._path.with_name(f"{FILE}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(FILE + suffix).rename(aside.with_name(aside.name + suffix))
        files.sync_directory(self._path.parent)
        return aside


def _connect(path: Path) -> sqlite3.Connection:
    # The service's one thread uses it, another one closes it at the end.
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-256"):
            database.execute(f"PRAGMA {pragma}")
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        for table in _TABLES:
            database.execute(table)
    except BaseException:
        database.close()
        raise
    path.chmod(0o600)
    return database


@contextlib.contextmanager
def _using(path: Path, verb: str) -> Iterator[None]:
    code = "IO_WRITE_ERROR" if verb == "write" else "IO_READ_ERROR"
    try:
        yield
    except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        raise errors.NucleusError(code, f"cannot {verb} the shadows in {path}: {error}") from error
