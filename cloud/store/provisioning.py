"""Provisioning templates, certificates that wait for their device, and the tokens that say whose they are."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy import Connection, RowMapping

from cloud.core import provisioning_template
from cloud.store import identities, jobs, pki, principals, schema

PENDING = "PENDING_ACTIVATION"
TOKEN_MS = 3_600_000  # spec/cloud.md 4.2
PENDING_LIMIT = 10_000  # certificates that wait at a time: a stolen claim must not fill the disk


def find(tx: Connection, name: str) -> RowMapping | None:
    t = schema.provisioning_templates
    return tx.execute(sql.select(t).where(t.c.name == name)).mappings().one_or_none()


def listed(tx: Connection, after: str, limit: int) -> Sequence[RowMapping]:
    t = schema.provisioning_templates
    return tx.execute(sql.select(t).where(t.c.name > after).order_by(t.c.name).limit(limit)).mappings().all()


def add(tx: Connection, name: str, now_ms: int, **fields: Any) -> None:
    """`fields` are description, body, role_arn and enabled."""
    row = {"name": name, "created_ms": now_ms, "modified_ms": now_ms}
    tx.execute(schema.provisioning_templates.insert().values(**row, **fields))


def update(tx: Connection, name: str, now_ms: int, **fields: Any) -> None:
    t = schema.provisioning_templates
    tx.execute(t.update().where(t.c.name == name).values(modified_ms=now_ms, **fields))


def delete(tx: Connection, name: str) -> None:
    tx.execute(schema.provisioning_templates.delete().where(schema.provisioning_templates.c.name == name))


def keep(tx: Connection, made: pki.Certificate, now_ms: int) -> str:
    """Registers a certificate that nothing may be done with yet, and returns its ownership token.

    Certificates whose token has run out are forgotten. Raises ValueError when too many are waiting.
    """
    t, c = schema.ownership_tokens, schema.certificates
    old = sql.select(t.c.certificate_id).where(t.c.expires_ms < now_ms)
    if tx.execute(c.delete().where(c.c.status == PENDING, c.c.id.in_(old))).rowcount:
        principals.bump(tx)
    tx.execute(t.delete().where(t.c.expires_ms < now_ms))
    if tx.execute(sql.select(sql.func.count()).select_from(t)).scalar_one() >= PENDING_LIMIT:
        raise ValueError(f"{PENDING_LIMIT} certificates are waiting for their devices; try again in an hour")
    principals.add_certificate(tx, made, PENDING, now_ms)
    token = secrets.token_urlsafe(48)
    row = {"token_digest": _digest(token), "certificate_id": made.id, "expires_ms": now_ms + TOKEN_MS}
    tx.execute(t.insert().values(**row))
    return token


def owned(tx: Connection, token: str, now_ms: int) -> str | None:
    """The certificate that a token is good for."""
    t = schema.ownership_tokens
    query = sql.select(t.c.certificate_id).where(t.c.token_digest == _digest(token), t.c.expires_ms >= now_ms)
    return tx.execute(query).scalar_one_or_none()


def provision(
    tx: Connection, wanted: provisioning_template.Provision, certificate_id: str, arn_prefix: str, now_ms: int
) -> None:
    """Makes what the template says and turns the certificate on; its token is used up.

    `arn_prefix` is `arn:aws:iot:REGION:ACCOUNT:`. Raises ValueError for a group or policy that does not exist.
    """
    if identities.thing(tx, wanted.thing) is None:
        identities.create_thing(tx, wanted.thing, wanted.thing_type, wanted.attributes, now_ms)
    for name, document in wanted.policies:
        if principals.policy(tx, name) is None:
            if not document:
                raise ValueError(f"policy {name} of the template does not exist")
            principals.add_policy(tx, name, document, now_ms)
        principals.attach_policy(tx, name, f"{arn_prefix}cert/{certificate_id}")
    principals.set_status(tx, certificate_id, wanted.status)
    principals.attach_thing(tx, wanted.thing, certificate_id)
    for group in wanted.groups:
        if identities.group(tx, group) is None:
            raise ValueError(f"thing group {group} of the template does not exist")
        if not identities.is_member(tx, group, wanted.thing):
            identities.add_member(tx, group, wanted.thing, now_ms)
            jobs.thing_joined(tx, group, wanted.thing, now_ms)
    t = schema.ownership_tokens
    tx.execute(t.delete().where(t.c.certificate_id == certificate_id))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
