"""Revisions of targets. A deleted one keeps its row, hidden: revision numbers and creation times never go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy import Connection, RowMapping

from cloud.store import schema

ACTIVE = "ACTIVE"
DELETED = "DELETED"


def get(tx: Connection, deployment_id: str) -> RowMapping | None:
    t = schema.deployments
    query = sql.select(t).where(t.c.id == deployment_id, t.c.status != DELETED)
    return tx.execute(query).mappings().one_or_none()


def newest(tx: Connection, target_arn: str) -> RowMapping | None:
    """The newest revision of a target, deleted or not."""
    t = schema.deployments
    query = sql.select(t).where(t.c.target_arn == target_arn).order_by(t.c.revision.desc()).limit(1)
    return tx.execute(query).mappings().one_or_none()


def parent(tx: Connection, target_arn: str) -> str:
    """The parent of a group that sub-deployments were made for, "" if none was."""
    t = schema.deployments
    where = (t.c.target_arn == target_arn, t.c.parent_target_arn.is_not(None))
    return str(tx.execute(sql.select(t.c.parent_target_arn).where(*where).limit(1)).scalar() or "")


def newest_ms(tx: Connection, targets: set[str]) -> int | None:
    """When the newest revision of the targets was created, all sub-deployments included: devices refuse what is older."""
    t = schema.deployments
    family = t.c.target_arn.in_(targets) | t.c.parent_target_arn.is_not(None)
    found = tx.execute(sql.select(sql.func.max(t.c.created_ms)).where(family)).scalar()
    return None if found is None else int(found)


def add(tx: Connection, row: Mapping[str, Any]) -> None:
    """Inserts an ACTIVE revision as its target's latest."""
    t = schema.deployments
    tx.execute(t.update().where(t.c.target_arn == row["target_arn"]).values(is_latest=False))
    tx.execute(t.insert().values(**row, status=ACTIVE, is_latest=True))


def delete(tx: Connection, deployment_id: str) -> None:
    t = schema.deployments
    tx.execute(t.update().where(t.c.id == deployment_id).values(status=DELETED))


def listed(
    tx: Connection, *, target_arn: str, parent_arn: str, latest_only: bool, after: str, limit: int
) -> Sequence[RowMapping]:
    """Newest first; `after` is the key (`key`) of the last row seen."""
    t = schema.deployments
    query = sql.select(t).where(t.c.status != DELETED).order_by(t.c.created_ms.desc(), t.c.id).limit(limit)
    if target_arn:
        query = query.where(t.c.target_arn == target_arn)
    if parent_arn:
        query = query.where(t.c.parent_target_arn == parent_arn)
    if latest_only:
        query = query.where(t.c.is_latest)
    if after:
        created, _, deployment_id = after.partition(" ")
        older = t.c.created_ms < int(created)
        query = query.where(older | ((t.c.created_ms == int(created)) & (t.c.id > deployment_id)))
    return tx.execute(query).mappings().all()


def key(row: RowMapping) -> str:
    """Where a row stands in `listed`."""
    return f"{row['created_ms']} {row['id']}"
