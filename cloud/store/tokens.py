"""Client tokens: the answer of a finished create call, replayed to a client that repeats it within 8 hours."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sql
from sqlalchemy import Connection

from cloud.store import schema

REPLAY_MS = 8 * 3600 * 1000


def answer(tx: Connection, operation: str, token: str, now_ms: int) -> dict[str, Any] | None:
    """What this token was answered, None if it is new or too old."""
    t = schema.client_tokens
    query = sql.select(t.c.answer).where(t.c.operation == operation, t.c.token == token)
    text = tx.execute(query.where(t.c.created_ms > now_ms - REPLAY_MS)).scalar_one_or_none()
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


def remember(tx: Connection, operation: str, token: str, given: dict[str, Any], now_ms: int) -> None:
    """Keeps an answer in the transaction that made it true, and drops those that are too old."""
    t = schema.client_tokens
    tx.execute(t.delete().where(t.c.created_ms <= now_ms - REPLAY_MS))
    text = msgspec.json.encode(given).decode()
    tx.execute(t.insert().values(operation=operation, token=token, answer=text, created_ms=now_ms))
