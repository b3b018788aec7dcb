"""Messages to devices, written in the transaction that made them true and drained by `cloud.mqtt.sender`.

A message stays until the broker has taken it, so each is sent at least once, and in the order it was written.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy
from msgspec import Struct
from sqlalchemy import delete, insert, select

from cloud.store import schema


class Message(Struct, frozen=True):
    """One message that waits; `id` grows in the order of writing."""

    id: int
    topic: str
    payload: bytes


def put(tx: sqlalchemy.Connection, topic: str, payload: bytes, now_ms: int) -> None:
    put_all(tx, [(topic, payload)], now_ms)


def put_all(tx: sqlalchemy.Connection, messages: Sequence[tuple[str, bytes]], now_ms: int) -> None:
    if messages:
        rows = [{"topic": topic, "payload": payload, "created_ms": now_ms} for topic, payload in messages]
        tx.execute(insert(schema.outbox), rows)


def waiting(tx: sqlalchemy.Connection, *, limit: int) -> list[Message]:
    """The oldest messages, at most `limit`."""
    table = schema.outbox
    rows = tx.execute(select(table.c.id, table.c.topic, table.c.payload).order_by(table.c.id).limit(limit))
    return [Message(row.id, row.topic, row.payload) for row in rows]


def remove(tx: sqlalchemy.Connection, ids: Sequence[int]) -> None:
    """Forgets messages that the broker has taken."""
    tx.execute(delete(schema.outbox).where(schema.outbox.c.id.in_(ids)))
