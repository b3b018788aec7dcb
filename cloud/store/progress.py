"""How a deployment stands on each of its devices, for an operator who watches: status, details, components."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import select

from cloud.core import executions
from cloud.store import schema


def of_deployment(tx: sqlalchemy.Connection, deployment_id: str) -> list[dict[str, Any]]:
    """One entry for each device by name: `{thing, status, statusDetails, updatedAt, components: [{name, version, state}]}`.

    `updatedAt` is epoch seconds. Devices that left the group before they had ended are omitted.
    """
    found: list[Any] = []
    for carrier in (schema.job_executions, schema.thing_deployments):
        query = select(carrier.c.thing, carrier.c.status, carrier.c.status_details, carrier.c.updated_ms)
        query = query.where(carrier.c.deployment_id == deployment_id, carrier.c.status != executions.REMOVED)
        found += tx.execute(query).all()
    components = _components(tx, deployment_id)
    return [
        {
            "thing": row.thing,
            "status": row.status,
            "statusDetails": msgspec.json.decode(row.status_details),
            "updatedAt": row.updated_ms / 1000,
            "components": components.get(row.thing, []),
        }
        for row in sorted(found, key=lambda row: row.thing)
    ]


def _components(tx: sqlalchemy.Connection, deployment_id: str) -> dict[str, list[dict[str, str]]]:
    """What the devices of a deployment run as they last reported it, in one query."""
    table = schema.installed_components
    things: list[sqlalchemy.Select[Any]] = [
        select(carrier.c.thing).where(carrier.c.deployment_id == deployment_id)
        for carrier in (schema.job_executions, schema.thing_deployments)
    ]
    query = select(table.c.thing, table.c.name, table.c.version, table.c.state)
    query = query.where(table.c.thing.in_(sqlalchemy.union_all(*things))).order_by(table.c.thing, table.c.name)
    found: dict[str, list[dict[str, str]]] = {}
    for row in tx.execute(query):
        found.setdefault(row.thing, []).append({"name": row.name, "version": row.version, "state": row.state})
    return found
