"""Certificates that devices asked for before their own end: registered, and not yet used in the old one's place."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy import Connection

from cloud.store import pki, principals, schema


def begin(tx: Connection, old_id: str, made: pki.Certificate, arn_prefix: str, now_ms: int) -> None:
    """The new certificate may do what the old one may; one that was asked for earlier and never used is forgotten.

    `arn_prefix` is `arn:aws:iot:REGION:ACCOUNT:cert/`.
    """
    t = schema.certificate_renewals
    unused = tx.execute(sql.select(t.c.new_id).where(t.c.old_id == old_id)).scalar_one_or_none()
    if unused is not None:
        for name in principals.policies_on(tx, arn_prefix + unused):
            principals.detach_policy(tx, name, arn_prefix + unused)
        principals.delete_certificate(tx, unused)
    principals.add_certificate(tx, made, principals.ACTIVE, now_ms)
    for thing in principals.things_of(tx, old_id):
        principals.attach_thing(tx, thing, made.id)
    for name in principals.policies_on(tx, arn_prefix + old_id):
        principals.attach_policy(tx, name, arn_prefix + made.id)
    tx.execute(t.insert().values(old_id=old_id, new_id=made.id, created_ms=now_ms))


def confirm(tx: Connection, new_id: str) -> str | None:
    """The new certificate is in use: the old one is turned off. Returns its id; None if nothing was pending."""
    t = schema.certificate_renewals
    old_id = tx.execute(sql.select(t.c.old_id).where(t.c.new_id == new_id)).scalar_one_or_none()
    if old_id is not None:
        tx.execute(t.delete().where(t.c.new_id == new_id))
        principals.set_status(tx, old_id, "INACTIVE")
    return old_id
