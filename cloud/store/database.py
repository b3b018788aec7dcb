"""Opens the database and hands out transactions.

One writer at a time: SQLite's own queue is a poll with growing sleeps, a lock hands over at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import event

from cloud.store import schema


class Database:
    """One engine; `begin()` is a read-write transaction: committed at the end of the block, rolled back by an error.

    `read()` is a snapshot that neither waits for a writer nor makes one wait. Neither may be begun within the other.
    """

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url)
        self._writing = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
            event.listen(self._engine, "begin", _begin_immediate)

    def create(self) -> None:
        """Creates what is missing; existing tables stay as they are."""
        schema.metadata.create_all(self._engine)

    @contextmanager
    def begin(self) -> Iterator[sqlalchemy.Connection]:
        with self._writing, self._engine.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[sqlalchemy.Connection]:
        with self._engine.connect().execution_options(marram_read=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below decides, not the driver's
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    # Two readers that both go on to write would dead-lock under a deferred BEGIN.
    reading = connection.get_execution_options().get("marram_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
