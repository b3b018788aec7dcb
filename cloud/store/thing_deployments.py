"""Deployments to a single thing: the deployment shadow carries them out, its reported part brings the result back.

Source: spec/cloud.md 3.4.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import insert, select, update

from cloud.core import rollout
from cloud.store import schema, shadows
from nucleus.core import shadow
from nucleus.wire import jobs

_table = schema.thing_deployments
_STATUS = {"SUCCEEDED": "COMPLETED"}  # what the operator's API calls the success of a thing's deployment
_OPEN = ("QUEUED", "IN_PROGRESS")


def open_deployment(tx: sqlalchemy.Connection, deployment_id: str, thing: str, document: str, now_ms: int) -> None:
    """Desires the deployment in the thing's shadow. The one before it counts as cancelled if it had not ended."""
    where = (_table.c.thing == thing, _table.c.status.in_(_OPEN))
    tx.execute(update(_table).where(*where).values(status="CANCELED", updated_ms=now_ms))
    tx.execute(
        insert(_table).values(
            deployment_id=deployment_id, thing=thing, status="QUEUED", status_details="{}", updated_ms=now_ms
        )
    )
    _desire(tx, thing, {"fleetConfig": document, "desiredStatus": "SUCCEEDED"}, now_ms)


def cancel(tx: sqlalchemy.Connection, deployment_id: str, thing: str, now_ms: int) -> None:
    """Desires the end of a deployment; a device that began it reports itself what became of it."""
    row = tx.execute(select(_table.c.status).where(_table.c.deployment_id == deployment_id)).first()
    if row is None or row.status not in _OPEN:
        return
    if row.status == "QUEUED":
        _set(tx, deployment_id, "CANCELED", "{}", now_ms)
    _desire(tx, thing, {"desiredStatus": "CANCELED"}, now_ms)


def reported(tx: sqlalchemy.Connection, thing: str, section: Any, now_ms: int) -> None:
    """Takes the reported part of the deployment shadow; what names no deployment of this thing changes nothing."""
    if not isinstance(section, dict):
        return
    found = rollout.configuration(str(section.get("fleetConfigurationArnForStatus", "")))
    if found is None:
        return
    table = schema.deployments
    where = (table.c.target_arn == found[0], table.c.revision == found[1])
    row = tx.execute(
        select(table.c.id, table.c.status)
        .join(_table, _table.c.deployment_id == table.c.id)
        .where(*where)
        .where(_table.c.thing == thing)
    ).first()
    status = section.get("status")
    if row is None or not isinstance(status, str):
        return
    details = msgspec.json.encode(section.get("statusDetails") or {}).decode()
    _set(tx, row.id, _STATUS.get(status, status[:16]), details, now_ms)
    ended = rollout.ended(status)
    if ended is not None and row.status == rollout.ACTIVE:
        tx.execute(update(table).where(table.c.id == row.id).values(status=ended))


def _set(tx: sqlalchemy.Connection, deployment_id: str, status: str, details: str, now_ms: int) -> None:
    values = {"status": status, "status_details": details, "updated_ms": now_ms}
    tx.execute(update(_table).where(_table.c.deployment_id == deployment_id).values(values))


def _desire(tx: sqlalchemy.Connection, thing: str, desired: dict[str, str], now_ms: int) -> None:
    request = shadow.Request(state={"desired": desired})
    shadows.write(tx, thing, jobs.SHADOW, request, now_ms, by_service=True)
