"""Tags of resources, by ARN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sql
from sqlalchemy import Connection

from cloud.store import schema


def read(tx: Connection, arn: str) -> dict[str, str]:
    t = schema.tags
    rows = tx.execute(sql.select(t.c.key, t.c.value).where(t.c.arn == arn).order_by(t.c.key))
    return dict(rows.all())


def write(tx: Connection, arn: str, tags: Mapping[str, str]) -> None:
    """Adds tags; a key that is there gets the new value."""
    remove(tx, arn, list(tags))
    if tags:
        tx.execute(schema.tags.insert(), [{"arn": arn, "key": key, "value": value} for key, value in tags.items()])


def remove(tx: Connection, arn: str, keys: Sequence[str]) -> None:
    t = schema.tags
    tx.execute(t.delete().where(t.c.arn == arn, t.c.key.in_(keys)))


def clear(tx: Connection, arn: str) -> None:
    """Removes all tags of a resource that is being deleted."""
    tx.execute(schema.tags.delete().where(schema.tags.c.arn == arn))
