"""Which bytes lie under which bucket and key; the bytes themselves are in `cloud.objects.files`."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import sqlalchemy as sql
from sqlalchemy import Connection, RowMapping

from cloud.objects import files
from cloud.store import schema


def bucket(tx: Connection, name: str) -> RowMapping | None:
    t = schema.buckets
    return tx.execute(sql.select(t).where(t.c.name == name)).mappings().one_or_none()


def create_bucket(tx: Connection, name: str, now_ms: int) -> None:
    tx.execute(schema.buckets.insert().values(name=name, created_ms=now_ms))


def buckets(tx: Connection) -> Sequence[RowMapping]:
    return tx.execute(sql.select(schema.buckets).order_by(schema.buckets.c.name)).mappings().all()


def get(tx: Connection, bucket_name: str, key: str) -> RowMapping | None:
    t = schema.objects
    return tx.execute(sql.select(t).where(t.c.bucket == bucket_name, t.c.key == key)).mappings().one_or_none()


def put(
    tx: Connection, bucket_name: str, key: str, stored: files.Stored, *, etag: str, content_type: str, now_ms: int
) -> None:
    """Replaces what lay under the key."""
    remove(tx, bucket_name, key)
    row = {"bucket": bucket_name, "key": key, "size": stored.size, "etag": etag, "sha256": stored.sha256}
    tx.execute(schema.objects.insert().values(**row, content_type=content_type, created_ms=now_ms))


def remove(tx: Connection, bucket_name: str, key: str) -> None:
    t = schema.objects
    tx.execute(t.delete().where(t.c.bucket == bucket_name, t.c.key == key))


def referenced(tx: Connection) -> set[str]:
    """The SHA-256 of all bytes that an object or a component version names."""
    digests = {base64.b64decode(digest).hex() for digest in tx.execute(sql.select(schema.artifacts.c.digest)).scalars()}
    return digests | set(tx.execute(sql.select(schema.objects.c.sha256)).scalars())


def listed(tx: Connection, bucket_name: str, prefix: str, after: str, limit: int) -> Sequence[RowMapping]:
    """Objects by key in byte order, those above `after`."""
    t = schema.objects
    query = sql.select(t).where(t.c.bucket == bucket_name, t.c.key > after)
    if prefix:
        query = query.where(t.c.key.startswith(prefix, autoescape=True))
    return tx.execute(query.order_by(t.c.key).limit(limit)).mappings().all()
