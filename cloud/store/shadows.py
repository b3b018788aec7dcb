"""Shadows of things: reading, and writing together with the messages that every write owes.

The classic shadow has the empty name. Writes by the service itself are announced like those of a device.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import insert, select, update

from cloud.store import outbox, schema
from nucleus.core import shadow
from nucleus.wire import jobs

_table = schema.shadows


def find(tx: sqlalchemy.Connection, thing: str, name: str) -> shadow.Shadow | None:
    """The shadow, also a deleted one: its version goes on; None if there never was one."""
    row = tx.execute(select(_table).where(_table.c.thing == thing, _table.c.name == name)).first()
    if row is None:
        return None
    return shadow.Shadow(
        state=msgspec.json.decode(row.state),
        metadata=msgspec.json.decode(row.metadata),
        version=row.version,
        updated_ms=row.updated_ms,
        deleted=row.deleted,
    )


def write(
    tx: sqlalchemy.Connection,
    thing: str,
    name: str,
    request: shadow.Request,
    now_ms: int,
    *,
    by_service: bool = False,
) -> shadow.Shadow | shadow.Refused:
    """Applies an update and announces it. The service's own desired state is not held to the size limit of clients."""
    before = find(tx, thing, name)
    # What the service desires of a deployment may fill the limit alone; the device must still be able to report.
    counted = ("reported",) if name == jobs.SHADOW else shadow.SECTIONS
    after = shadow.update(before or shadow.Shadow(), request, now_ms, counted=() if by_service else counted)
    if isinstance(after, shadow.Refused):
        return after
    _save(tx, thing, name, after, new=before is None)
    topic = f"{jobs.shadow(thing, name)}/update"
    messages = [
        (f"{topic}/accepted", shadow.accepted(request, after)),
        (f"{topic}/documents", shadow.documents(before or shadow.Shadow(), after, request.client_token)),
    ]
    difference = shadow.difference(after, request.client_token)
    if difference is not None:
        messages.append((f"{topic}/delta", difference))
    outbox.put_all(tx, messages, now_ms)
    return after


def remove(tx: sqlalchemy.Connection, thing: str, name: str, now_ms: int) -> int | None:
    """Deletes the shadow; returns the version it had, None if there is none."""
    held = find(tx, thing, name)
    if held is None or held.deleted:
        return None
    _save(tx, thing, name, shadow.tombstone(held, now_ms), new=False)
    return held.version


def names(tx: sqlalchemy.Connection, thing: str) -> list[str]:
    """Names of the thing's named shadows, sorted."""
    where = (_table.c.thing == thing, _table.c.name != "", _table.c.deleted.is_(False))
    return list(tx.execute(select(_table.c.name).where(*where).order_by(_table.c.name)).scalars())


def _save(tx: sqlalchemy.Connection, thing: str, name: str, held: shadow.Shadow, *, new: bool) -> None:
    values: dict[str, Any] = {
        "state": msgspec.json.encode(held.state).decode(),
        "metadata": msgspec.json.encode(held.metadata).decode(),
        "version": held.version,
        "deleted": held.deleted,
        "updated_ms": held.updated_ms,
    }
    if new:
        tx.execute(insert(_table).values(thing=thing, name=name, **values))
    else:
        tx.execute(update(_table).where(_table.c.thing == thing, _table.c.name == name).values(values))
