"""Who there is: operators' access keys, things, thing groups and who is in them."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sql
from msgspec import Struct
from sqlalchemy import Connection, RowMapping

from cloud.store import principals, schema

_KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class AccessKey(Struct, frozen=True):
    """`role` is set for the temporary key of a device, whose name `user_name` then is."""

    id: str
    secret: str
    user_name: str
    role: str = ""


def create_access_key(tx: Connection, user_name: str, now_ms: int) -> AccessKey:
    """A new active key in AWS's form: AKIA and 16 characters, a secret of 40."""
    key = AccessKey(
        "AKIA" + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16)), secrets.token_urlsafe(30), user_name
    )
    row = {"id": key.id, "secret": key.secret, "user_name": user_name, "active": True, "created_ms": now_ms}
    tx.execute(schema.access_keys.insert().values(row))
    return key


def access_key(tx: Connection, key_id: str) -> AccessKey | None:
    """The active key of this id."""
    t = schema.access_keys
    row = tx.execute(sql.select(t).where(t.c.id == key_id, t.c.active)).mappings().one_or_none()
    return AccessKey(row["id"], row["secret"], row["user_name"]) if row else None


# ---- things --------------------------------------------------------------------------------------------------
def thing(tx: Connection, name: str) -> RowMapping | None:
    t = schema.things
    return tx.execute(sql.select(t).where(t.c.name == name)).mappings().one_or_none()


def create_thing(tx: Connection, name: str, kind: str | None, attributes: Mapping[str, str], now_ms: int) -> str:
    """Inserts a thing and returns its id; the caller has made sure that the name is free."""
    thing_id = str(uuid.uuid4())
    row = {"name": name, "id": thing_id, "type": kind, "attributes": _text(attributes), "version": 1}
    tx.execute(schema.things.insert().values(**row, created_ms=now_ms))
    return thing_id


def update_thing(tx: Connection, name: str, kind: str | None, attributes: Mapping[str, str]) -> None:
    t = schema.things
    changes = {"type": kind, "attributes": _text(attributes), "version": t.c.version + 1}
    tx.execute(t.update().where(t.c.name == name).values(changes))


def delete_thing(tx: Connection, name: str) -> None:
    """Also out of its groups; certificates stay, their attachment goes."""
    tx.execute(schema.things.delete().where(schema.things.c.name == name))
    principals.bump(tx)


def things(tx: Connection, after: str, limit: int, kind: str | None = None) -> Sequence[RowMapping]:
    t = schema.things
    query = sql.select(t).where(t.c.name > after).order_by(t.c.name).limit(limit)
    if kind:
        query = query.where(t.c.type == kind)
    return tx.execute(query).mappings().all()


# ---- thing groups --------------------------------------------------------------------------------------------
def group(tx: Connection, name: str) -> RowMapping | None:
    t = schema.thing_groups
    return tx.execute(sql.select(t).where(t.c.name == name)).mappings().one_or_none()


def create_group(
    tx: Connection,
    name: str,
    parent: str | None,
    description: str | None,
    attributes: Mapping[str, str],
    *,
    now_ms: int,
) -> str:
    """Inserts a group and returns its id; the caller has made sure that the name is free and the parent exists."""
    group_id = str(uuid.uuid4())
    row = {"name": name, "id": group_id, "parent": parent, "description": description, "version": 1}
    tx.execute(schema.thing_groups.insert().values(**row, attributes=_text(attributes), created_ms=now_ms))
    return group_id


def delete_group(tx: Connection, name: str) -> None:
    tx.execute(schema.thing_groups.delete().where(schema.thing_groups.c.name == name))
    principals.bump(tx)


def groups(
    tx: Connection, after: str, limit: int, *, prefix: str = "", parent: str | None = None
) -> Sequence[RowMapping]:
    """Groups by name; with `parent` only its direct children."""
    t = schema.thing_groups
    query = sql.select(t).where(t.c.name > after).order_by(t.c.name).limit(limit)
    if prefix:
        query = query.where(t.c.name.startswith(prefix, autoescape=True))
    if parent is not None:
        query = query.where(t.c.parent == parent)
    return tx.execute(query).mappings().all()


def lineage(tx: Connection, name: str) -> tuple[str, ...]:
    """The ancestors of a group from the root to its parent."""
    found: list[str] = []
    row = group(tx, name)
    while row is not None and row["parent"] and row["parent"] not in found:
        found.append(row["parent"])
        row = group(tx, row["parent"])
    return tuple(reversed(found))


# ---- members -------------------------------------------------------------------------------------------------
def is_member(tx: Connection, group_name: str, thing_name: str) -> bool:
    t = schema.group_members
    query = sql.select(t.c.thing).where(t.c.group_name == group_name, t.c.thing == thing_name)
    return tx.execute(query).first() is not None


def add_member(tx: Connection, group_name: str, thing_name: str, now_ms: int) -> None:
    """The caller has made sure that it is not a member yet."""
    row = {"group_name": group_name, "thing": thing_name, "added_ms": now_ms}
    tx.execute(schema.group_members.insert().values(row))
    principals.bump(tx)


def remove_member(tx: Connection, group_name: str, thing_name: str) -> None:
    t = schema.group_members
    tx.execute(t.delete().where(t.c.group_name == group_name, t.c.thing == thing_name))
    principals.bump(tx)


def members(
    tx: Connection, group_name: str, after: str = "", limit: int | None = None, *, recursive: bool = False
) -> list[str]:
    """Thing names in order; `recursive` takes the members of all descendants too."""
    names = [group_name]
    while recursive:
        t = schema.thing_groups
        children = tx.execute(sql.select(t.c.name).where(t.c.parent.in_(names), t.c.name.not_in(names))).scalars().all()
        if not children:
            break
        names.extend(children)
    m = schema.group_members
    query = sql.select(m.c.thing).distinct().where(m.c.group_name.in_(names), m.c.thing > after).order_by(m.c.thing)
    return list(tx.execute(query.limit(limit)).scalars())


def groups_of(tx: Connection, thing_name: str, after: str = "", limit: int | None = None) -> Sequence[RowMapping]:
    """The groups a thing is a direct member of, by name."""
    g, m = schema.thing_groups, schema.group_members
    query = sql.select(g).join(m, m.c.group_name == g.c.name).where(m.c.thing == thing_name, g.c.name > after)
    return tx.execute(query.order_by(g.c.name).limit(limit)).mappings().all()


def attributes(row: RowMapping) -> dict[str, str]:
    """The attributes of a thing's or group's row."""
    return msgspec.json.decode(row["attributes"], type=dict[str, str])


def _text(value: Mapping[str, str]) -> str:
    return msgspec.json.encode(value).decode()
