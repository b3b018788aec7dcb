"""Effective deployments of a device: its job executions and the deployments of its own thing, in the API's shape.

Source: spec/cloud.md 1.6 (EffectiveDeployment).
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import select

from cloud.core import executions, fleet_status, rollout
from cloud.store import schema


def effective_deployments(tx: sqlalchemy.Connection, thing: str) -> list[dict[str, Any]]:
    """What was sent to a device and what became of it, the newest deployment first; what it left behind is omitted."""
    table = schema.deployments
    listed: list[tuple[int, str, dict[str, Any]]] = []
    for carrier in (schema.job_executions, schema.thing_deployments):
        query = (
            select(table, carrier.c.status.label("execution"), carrier.c.status_details, carrier.c.updated_ms)
            .join(carrier, carrier.c.deployment_id == table.c.id)
            .where(carrier.c.thing == thing, carrier.c.status != executions.REMOVED)
        )
        listed.extend((row.created_ms, row.id, _shape(row)) for row in tx.execute(query))
    return [shape for _, _, shape in sorted(listed, key=lambda one: one[:2], reverse=True)]


def _shape(row: Any) -> dict[str, Any]:
    details = msgspec.json.decode(row.status_details, type=dict[str, Any])
    reason, errors = fleet_status.outcome(details)
    shape = {
        "deploymentId": row.id,
        "deploymentName": row.name,
        "targetArn": row.target_arn,
        "coreDeviceExecutionStatus": row.execution,
        "creationTimestamp": row.created_ms / 1000,
        "modifiedTimestamp": row.updated_ms / 1000,
        "statusDetails": errors,
    }
    if reason:
        shape["reason"] = reason
    if row.job_id:
        target = rollout.target(row.target_arn)
        shape["iotJobId"] = row.job_id
        shape["iotJobArn"] = f"arn:aws:iot:{target.region}:{target.account}:job/{row.job_id}"
    return shape
