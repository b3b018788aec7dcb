"""What must outlive a SIGKILL: sessions, subscriptions, queues, retained messages, in one SQLite file (WAL).

Group commit: changes gather for 5 ms and are written in one transaction by a worker thread, so a slow disk does not stop
the loop. What waits for durability (a PUBACK) is told afterwards. A queue entry acknowledged before its batch is written
never touches the disk. While the disk refuses, the batch is tried again every second and no PUBACK is given.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from cloud.mqtt.broker import messages
from nucleus.wire import mqtt_packets

_BATCH_S = 0.005
_RETRY_S = 1.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (client_id TEXT PRIMARY KEY, expiry_s INTEGER, ends_at_ms INTEGER);
CREATE TABLE IF NOT EXISTS subscriptions (client_id TEXT, filter TEXT, record BLOB, PRIMARY KEY (client_id, filter))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, record BLOB);
CREATE TABLE IF NOT EXISTS queue (client_id TEXT, sequence INTEGER, message_id INTEGER, retain INTEGER, identifiers BLOB,
  PRIMARY KEY (client_id, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retained (topic TEXT PRIMARY KEY, record BLOB);
DELETE FROM messages WHERE id NOT IN (SELECT message_id FROM queue);
"""
_STATEMENTS = {
    "session": "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
    "no session": "DELETE FROM sessions WHERE client_id = ?",
    "no subscriptions": "DELETE FROM subscriptions WHERE client_id = ?",
    "subscription": "INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?)",
    "no subscription": "DELETE FROM subscriptions WHERE client_id = ? AND filter = ?",
    "message": "INSERT OR REPLACE INTO messages VALUES (?, ?)",
    "no message": "DELETE FROM messages WHERE id = ?",
    "entry": "INSERT OR REPLACE INTO queue VALUES (?, ?, ?, ?, ?)",
    "no entry": "DELETE FROM queue WHERE client_id = ? AND sequence = ?",
    "retained": "INSERT OR REPLACE INTO retained VALUES (?, ?)",
    "not retained": "DELETE FROM retained WHERE topic = ?",
}
_encode = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(messages.Message).decode
_decode_subscription = msgspec.msgpack.Decoder(tuple[mqtt_packets.Request, int]).decode

_Change = tuple[str, tuple[Any, ...], Callable[[], None] | None]


class StoredSession(msgspec.Struct):
    """A session as it was on disk; `ends_at_ms` is 0 when its client was connected at the end."""

    client_id: str
    expiry_s: int
    ends_at_ms: int
    subscriptions: list[tuple[mqtt_packets.Request, int]] = []
    queue: list[messages.Delivery] = []


class Journal:
    """`open` once, then `run` until `stop`; the other methods only note changes and return at once."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._changes: dict[tuple[Any, ...], _Change] = {}
        self._waiters: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._rows = itertools.count(1)
        self._sequences = itertools.count(1)
        self._lock = threading.Lock()  # the worker thread of a cancelled `run` may still be writing

    def open(self, *, synchronous: str = "FULL") -> tuple[list[StoredSession], list[messages.Message]]:
        """Opens the file and returns the sessions and the retained messages in it."""
        self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._path.chmod(0o600)
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "busy_timeout=5000"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)
        return self._load_sessions(), [_decode_message(row[0]) for row in self._rows_of("SELECT record FROM retained")]

    async def run(self) -> None:
        """Commits batches until `stop`, the last one included; closes the file."""
        try:
            while not self._stopping or self._changes or self._waiters:
                await self._wake.wait()
                if not self._stopping:
                    await asyncio.sleep(_BATCH_S)
                    self._wake.clear()
                await self._commit()
        finally:
            with self._lock:
                self._database.close()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def next_sequence(self) -> int:
        """A number above that of every queue entry so far, those on disk included."""
        return next(self._sequences)

    def after_commit(self, done: Callable[[], None]) -> None:
        """Calls `done` when everything noted so far is on disk."""
        self._waiters.append(done)
        self._wake.set()

    def put_session(self, client_id: str, expiry_s: int, ends_at_ms: int) -> None:
        self._note(("s", client_id), ("session", (client_id, expiry_s, ends_at_ms), None))

    def forget_session(self, client_id: str, queue: Iterable[messages.Delivery]) -> None:
        for delivery in queue:
            self.dequeue(client_id, delivery)
        self._note(("s", client_id), ("no session", (client_id,), None))
        self._drop_subscriptions(client_id)

    def put_subscription(self, client_id: str, key: str, request: mqtt_packets.Request, identifier: int) -> None:
        self._note(("f", client_id, key), ("subscription", (client_id, key, (request, identifier)), None))

    def remove_subscription(self, client_id: str, key: str) -> None:
        self._note(("f", client_id, key), ("no subscription", (client_id, key), None))

    def put_retained(self, message: messages.Message) -> None:
        self._note(("r", message.topic), ("retained", (message.topic, message), None))

    def remove_retained(self, topic: str) -> None:
        self._note(("r", topic), ("not retained", (topic,), None))

    def enqueue(self, client_id: str, delivery: messages.Delivery, done: Callable[[], None] | None) -> None:
        """Notes a queue entry; `done` is called when it is on disk or was acknowledged before."""
        message = delivery.message
        if message.references == 0:
            message.row = next(self._rows)
            self._note(("m", message.row), ("message", (message.row, message), None))
        message.references += 1
        values = (client_id, delivery.sequence, message.row, delivery.retain, delivery.identifiers)
        self._note(("q", client_id, delivery.sequence), ("entry", values, done))

    def dequeue(self, client_id: str, delivery: messages.Delivery) -> None:
        key = ("q", client_id, delivery.sequence)
        self._undo(key, ("no entry", (client_id, delivery.sequence), None))
        message = delivery.message
        message.references -= 1
        if message.references == 0:
            self._undo(("m", message.row), ("no message", (message.row,), None))

    def _undo(self, key: tuple[Any, ...], removal: _Change) -> None:
        noted = self._changes.pop(key, None)
        if noted is None:
            self._note(key, removal)
        elif noted[2] is not None:
            noted[2]()

    def _drop_subscriptions(self, client_id: str) -> None:
        for key in [key for key in self._changes if key[0] == "f" and key[1] == client_id]:
            del self._changes[key]
        self._note(("F", client_id), ("no subscriptions", (client_id,), None))

    def _note(self, key: tuple[Any, ...], change: _Change) -> None:
        self._changes.pop(key, None)  # the newest change of a key goes to the end: order matters to `no subscriptions`
        self._changes[key] = change
        self._wake.set()

    async def _commit(self) -> None:
        changes, self._changes = list(self._changes.values()), {}
        waiters, self._waiters = self._waiters, []
        failed = False
        while changes:
            try:
                await asyncio.to_thread(self._write, changes)
                break
            except sqlite3.Error as error:
                if not failed:
                    self._report(
                        f"cannot write {self._path.name}: {error}; PUBACKs are withheld until it can be written"
                    )
                failed = True
                await asyncio.sleep(_RETRY_S)
        for _, _, done in changes:
            if done is not None:
                done()
        for done in waiters:
            done()

    def _write(self, changes: list[_Change]) -> None:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for kind, group in itertools.groupby(changes, key=lambda change: change[0]):
                    self._database.executemany(_STATEMENTS[kind], [_bind(each[1]) for each in group])
                self._database.execute("COMMIT")
            except sqlite3.Error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _rows_of(self, statement: str) -> Iterable[Any]:
        return self._database.execute(statement)

    def _load_sessions(self) -> list[StoredSession]:
        rows = self._rows_of("SELECT client_id, expiry_s, ends_at_ms FROM sessions")
        found = {row[0]: StoredSession(row[0], row[1], row[2]) for row in rows}
        for client_id, record in self._rows_of("SELECT client_id, record FROM subscriptions"):
            if client_id in found:
                found[client_id].subscriptions.append(_decode_subscription(record))
        last = 0
        known: dict[int, messages.Message] = {}
        for row, record in self._rows_of("SELECT id, record FROM messages"):
            known[row] = _decode_message(record)
            known[row].row, known[row].references = row, 0
        self._rows = itertools.count(max(known, default=0) + 1)
        for client_id, sequence, row, retain, identifiers in self._rows_of("SELECT * FROM queue ORDER BY sequence"):
            last = sequence
            if client_id in found and row in known:
                known[row].references += 1
                identifiers = tuple(msgspec.msgpack.decode(identifiers))
                found[client_id].queue.append(messages.Delivery(known[row], sequence, bool(retain), identifiers))
        self._sequences = itertools.count(last + 1)
        return list(found.values())


def _bind(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Records are encoded here, in the worker thread, and only if they came this far."""
    return tuple(value if isinstance(value, (str, int)) else _encode(_bare(value)) for value in values)


def _bare(value: Any) -> Any:
    if isinstance(value, messages.Message):
        return msgspec.structs.replace(value, encoded=None, row=0, references=0)
    return value
