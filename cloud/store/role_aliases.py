"""Role aliases, and the temporary access keys that devices get through them (spec/cloud.md 5).

A key lives until its expiry or until the certificate it was given to is no longer ACTIVE, whichever comes first.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

import sqlalchemy as sql
from msgspec import Struct
from sqlalchemy import Connection, RowMapping

from cloud.store import principals, schema

PREFIX = "ASIA"  # AWS's mark of temporary keys; operators' keys begin with AKIA
_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class Session(Struct, frozen=True):
    """Whose a temporary key is; `role` is the name at the end of the role's ARN."""

    thing: str
    certificate_id: str
    role: str


class TemporaryKey(Struct, frozen=True):
    """`token` is in no table: only its digest is kept."""

    id: str
    secret: str
    token: str
    expires_ms: int


def find(tx: Connection, alias: str) -> RowMapping | None:
    t = schema.role_aliases
    return tx.execute(sql.select(t).where(t.c.alias == alias)).mappings().one_or_none()


def listed(tx: Connection, after: str, limit: int, *, ascending: bool) -> Sequence[RowMapping]:
    t = schema.role_aliases
    query = sql.select(t).order_by(t.c.alias if ascending else t.c.alias.desc()).limit(limit)
    if after:
        query = query.where(t.c.alias > after if ascending else t.c.alias < after)
    return tx.execute(query).mappings().all()


def add(tx: Connection, alias: str, role_arn: str, duration_s: int, now_ms: int) -> None:
    row = {"alias": alias, "role_arn": role_arn, "duration_s": duration_s, "created_ms": now_ms, "modified_ms": now_ms}
    tx.execute(schema.role_aliases.insert().values(**row))


def update(tx: Connection, alias: str, role_arn: str, duration_s: int, now_ms: int) -> None:
    t = schema.role_aliases
    tx.execute(
        t.update().where(t.c.alias == alias).values(role_arn=role_arn, duration_s=duration_s, modified_ms=now_ms)
    )


def delete(tx: Connection, alias: str) -> None:
    """Keys given out under it live on until they expire, as on AWS."""
    tx.execute(schema.role_aliases.delete().where(schema.role_aliases.c.alias == alias))


def issue(tx: Connection, alias: RowMapping, thing: str, certificate_id: str, now_ms: int) -> TemporaryKey:
    """A new key for one device; keys that have expired are forgotten on the way."""
    t = schema.temporary_keys
    tx.execute(t.delete().where(t.c.expires_ms < now_ms))
    key = TemporaryKey(
        PREFIX + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16)),
        secrets.token_urlsafe(30),
        secrets.token_urlsafe(96),
        (now_ms // 1000 + alias["duration_s"]) * 1000,  # whole seconds: the answer has no finer ones
    )
    row = {"id": key.id, "secret": key.secret, "token_digest": _digest(key.token), "expires_ms": key.expires_ms}
    owner = {"thing": thing, "certificate_id": certificate_id, "role": alias["role_arn"].rpartition("/")[2]}
    tx.execute(t.insert().values(**row, **owner, created_ms=now_ms))
    return key


def secret_of(tx: Connection, key_id: str, token: str, now_ms: int) -> tuple[str, Session] | None:
    """The secret and owner of a key that is good now and comes with its own token."""
    t = schema.temporary_keys
    row = tx.execute(sql.select(t).where(t.c.id == key_id)).mappings().one_or_none()
    if row is None or row["expires_ms"] <= now_ms or not hmac.compare_digest(row["token_digest"], _digest(token)):
        return None
    certificate = principals.certificate(tx, row["certificate_id"])
    if certificate is None or certificate["status"] != principals.ACTIVE:
        return None
    return row["secret"], Session(row["thing"], row["certificate_id"], row["role"])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
