"""What a certificate may do: certificates, policies, their attachments, and the snapshot pushed to the broker.

Every change of these, of things and of memberships bumps one version; the broker holds the snapshot of a version.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sql
from msgspec import Struct
from sqlalchemy import Connection, RowMapping

from cloud.store import pki, schema

ACTIVE = "ACTIVE"
_LINEAGE_LIMIT = 16  # parents followed from one group


class Principal(Struct, frozen=True):
    """A certificate as an access decision needs it; `policies` are the names of all policies that apply."""

    certificate_id: str
    active: bool
    not_after_ms: int
    things: tuple[str, ...]
    policies: tuple[str, ...]


def bump(tx: Connection) -> None:
    """Marks that the broker's snapshot is stale. To be called in the transaction of the change."""
    t = schema.principals_version
    if tx.execute(t.update().values(version=t.c.version + 1)).rowcount == 0:
        tx.execute(t.insert().values(id=1, version=1))


def version(tx: Connection) -> int:
    return tx.execute(sql.select(schema.principals_version.c.version)).scalar_one_or_none() or 0


def snapshot(tx: Connection) -> dict[str, Any]:
    """Plain data of the broker's Snapshot: version, policies by name, principals by fingerprint."""
    documents = tx.execute(sql.select(schema.policies.c.name, schema.policies.c.document)).all()
    certificates = tx.execute(sql.select(schema.certificates)).mappings().all()
    attached, owners, inherited = _policies_by_target(tx), _things_by_certificate(tx), _groups_by_thing(tx)
    found = {}
    for row in certificates:
        principal = _principal(row, owners.get(row["id"], ()), attached, inherited)
        found[row["id"]] = {
            "things": list(principal.things),
            "policies": list(principal.policies),
            "active": principal.active,
            "not_after_ms": principal.not_after_ms,
        }
    policies = {name: msgspec.json.decode(document) for name, document in documents}
    return {"version": version(tx), "policies": policies, "principals": found}


def principal(tx: Connection, fingerprint: str) -> Principal | None:
    """The principal behind a certificate's fingerprint, None if it was never registered."""
    row = certificate(tx, fingerprint)
    if row is None:
        return None
    owners = tuple(things_of(tx, fingerprint))
    inherited = _groups_by_thing(tx, owners)
    reached = {f"thinggroup/{group}" for groups in inherited.values() for group in groups}
    return _principal(row, owners, _policies_by_target(tx, {f"cert/{fingerprint}", *reached}), inherited)


def documents(tx: Connection, names: Sequence[str]) -> tuple[str, ...]:
    """The policy documents of these names, as JSON text in the order of the names."""
    t = schema.policies
    query = sql.select(t.c.document).where(t.c.name.in_(names)).order_by(t.c.name)
    return tuple(tx.execute(query).scalars())


# ---- certificates --------------------------------------------------------------------------------------------
def certificate(tx: Connection, certificate_id: str) -> RowMapping | None:
    t = schema.certificates
    return tx.execute(sql.select(t).where(t.c.id == certificate_id)).mappings().one_or_none()


def certificates(tx: Connection, after: str, limit: int, *, ascending: bool = True) -> Sequence[RowMapping]:
    t = schema.certificates
    query = sql.select(t).order_by(t.c.id if ascending else t.c.id.desc()).limit(limit)
    if after:
        query = query.where(t.c.id > after if ascending else t.c.id < after)
    return tx.execute(query).mappings().all()


def add_certificate(tx: Connection, made: pki.Certificate, status: str, now_ms: int) -> None:
    row = {"id": made.id, "pem": made.pem, "status": status, "created_ms": now_ms}
    validity = {"not_before_ms": made.not_before_ms, "not_after_ms": made.not_after_ms}
    tx.execute(schema.certificates.insert().values(**row, **validity))
    bump(tx)


def set_status(tx: Connection, certificate_id: str, status: str) -> None:
    t = schema.certificates
    tx.execute(t.update().where(t.c.id == certificate_id).values(status=status))
    bump(tx)


def delete_certificate(tx: Connection, certificate_id: str) -> None:
    tx.execute(schema.certificates.delete().where(schema.certificates.c.id == certificate_id))
    bump(tx)


# ---- which certificate speaks for which thing ----------------------------------------------------------------
def attach_thing(tx: Connection, thing: str, certificate_id: str) -> None:
    """Repeating is harmless."""
    t = schema.thing_principals
    if certificate_id not in certificates_of(tx, thing):
        tx.execute(t.insert().values(thing=thing, certificate_id=certificate_id))
        bump(tx)


def detach_thing(tx: Connection, thing: str, certificate_id: str) -> bool:
    """False if it was not attached."""
    t = schema.thing_principals
    gone = tx.execute(t.delete().where(t.c.thing == thing, t.c.certificate_id == certificate_id)).rowcount > 0
    bump(tx)
    return gone


def certificates_of(tx: Connection, thing: str) -> list[str]:
    t = schema.thing_principals
    query = sql.select(t.c.certificate_id).where(t.c.thing == thing).order_by(t.c.certificate_id)
    return list(tx.execute(query).scalars())


def things_of(tx: Connection, certificate_id: str) -> list[str]:
    t = schema.thing_principals
    query = sql.select(t.c.thing).where(t.c.certificate_id == certificate_id).order_by(t.c.thing)
    return list(tx.execute(query).scalars())


# ---- policies ------------------------------------------------------------------------------------------------
def policy(tx: Connection, name: str) -> RowMapping | None:
    t = schema.policies
    return tx.execute(sql.select(t).where(t.c.name == name)).mappings().one_or_none()


def policies(tx: Connection, after: str, limit: int, *, ascending: bool = True) -> Sequence[RowMapping]:
    t = schema.policies
    query = sql.select(t).order_by(t.c.name if ascending else t.c.name.desc()).limit(limit)
    if after:
        query = query.where(t.c.name > after if ascending else t.c.name < after)
    return tx.execute(query).mappings().all()


def add_policy(tx: Connection, name: str, document: str, now_ms: int) -> None:
    tx.execute(schema.policies.insert().values(name=name, document=document, version_id=1, created_ms=now_ms))
    bump(tx)


def delete_policy(tx: Connection, name: str) -> None:
    tx.execute(schema.policies.delete().where(schema.policies.c.name == name))
    bump(tx)


def attach_policy(tx: Connection, name: str, target: str) -> None:
    """`target` is the ARN of a certificate or a thing group. Repeating is harmless."""
    if name not in policies_on(tx, target):
        tx.execute(schema.policy_targets.insert().values(policy=name, target=target))
        bump(tx)


def detach_policy(tx: Connection, name: str, target: str) -> None:
    t = schema.policy_targets
    tx.execute(t.delete().where(t.c.policy == name, t.c.target == target))
    bump(tx)


def policies_on(tx: Connection, target: str) -> list[str]:
    t = schema.policy_targets
    return list(tx.execute(sql.select(t.c.policy).where(t.c.target == target).order_by(t.c.policy)).scalars())


def targets(tx: Connection, name: str) -> list[str]:
    t = schema.policy_targets
    return list(tx.execute(sql.select(t.c.target).where(t.c.policy == name).order_by(t.c.target)).scalars())


# ---- joining them --------------------------------------------------------------------------------------------
def _principal(
    row: RowMapping,
    owners: Sequence[str],
    attached: dict[tuple[str, str], list[str]],
    inherited: dict[str, list[str]],
) -> Principal:
    names = list(attached.get(("cert", row["id"]), ()))
    for thing in owners:
        for group in inherited.get(thing, ()):
            names.extend(attached.get(("thinggroup", group), ()))
    active = row["status"] == ACTIVE
    return Principal(row["id"], active, row["not_after_ms"], tuple(owners), tuple(dict.fromkeys(names)))


def _policies_by_target(tx: Connection, tails: Collection[str] | None = None) -> dict[tuple[str, str], list[str]]:
    """Policy names by ("cert", id) or ("thinggroup", name): the ARN's tail; all, or those of `tails` only."""
    found: dict[tuple[str, str], list[str]] = {}
    t = schema.policy_targets
    query = sql.select(t.c.target, t.c.policy).order_by(t.c.policy)
    if tails is not None:
        query = query.where(sql.or_(*(t.c.target.endswith(f":{tail}", autoescape=True) for tail in tails)))
    for target, name in tx.execute(query):
        kind, _, tail = target.split(":", 5)[-1].partition("/")
        found.setdefault((kind, tail), []).append(name)
    return found


def _things_by_certificate(tx: Connection) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    t = schema.thing_principals
    for thing, certificate_id in tx.execute(sql.select(t.c.thing, t.c.certificate_id).order_by(t.c.thing)):
        found[certificate_id] = (*found.get(certificate_id, ()), thing)
    return found


def _groups_by_thing(tx: Connection, things: Sequence[str] | None = None) -> dict[str, list[str]]:
    """All groups whose policies reach a thing: its own and their ancestors."""
    g, m = schema.thing_groups, schema.group_members
    parents: dict[str, str | None] = dict(tx.execute(sql.select(g.c.name, g.c.parent)).all())
    query = sql.select(m.c.thing, m.c.group_name)
    if things is not None:
        query = query.where(m.c.thing.in_(things))
    found: dict[str, list[str]] = {}
    for thing, name in tx.execute(query):
        group: str | None = name
        for _ in range(_LINEAGE_LIMIT):
            if group is None:
                break
            found.setdefault(thing, []).append(group)
            group = parents.get(group)
    return found
