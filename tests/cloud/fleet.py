"""A service's database in a folder, with things, groups and deployments put in as the API would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import select

from cloud.store import database, deployments, identities, jobs, outbox, schema

ACCOUNT = "arn:aws:iot:us-east-1:123456789012"
NOW_MS = 1_700_000_000_000


@contextlib.contextmanager
def opened(root: Path) -> Iterator[database.Database]:
    store = database.Database(f"sqlite:///{root / 'cloud.db'}")
    store.create()
    try:
        yield store
    finally:
        store.close()


def populate(tx: sqlalchemy.Connection, *things: str, group: str = "") -> None:
    """Makes things, and the group with all of them as members."""
    if group:
        identities.create_group(tx, group, None, "", {}, now_ms=NOW_MS)
    for name in things:
        identities.create_thing(tx, name, None, {}, NOW_MS)
        if group:
            identities.add_member(tx, group, name, NOW_MS)


def deploy(tx: sqlalchemy.Connection, target: str, *, revision: int = 1, now_ms: int = NOW_MS) -> str:
    """A revision of `thinggroup/<name>` or `thing/<name>`; its id is `d<revision>`, its job `j<revision>`."""
    deployment_id = f"d{revision}"
    configuration = f"arn:aws:greengrass:us-east-1:123456789012:configuration:{target}:{revision}"
    document = {"deploymentId": deployment_id, "configurationArn": configuration}
    row = {
        "id": deployment_id,
        "target_arn": f"{ACCOUNT}:{target}",
        "revision": revision,
        "name": f"revision {revision}",
        "job_id": f"j{revision}" if target.startswith("thinggroup/") else "",
        "components": "{}",
        "policies": "{}",
        "job_configuration": "{}",
        "parent_target_arn": None,
        "document": msgspec.json.encode(document).decode(),
        "created_ms": now_ms,
    }
    deployments.add(tx, row)
    jobs.open_deployment(tx, deployment_id, now_ms)
    return deployment_id


def drain(tx: sqlalchemy.Connection) -> list[tuple[str, Any]]:
    """What the outbox holds, as topics without `$aws/things/` and decoded payloads; it is empty afterwards."""
    waiting = outbox.waiting(tx, limit=1000)
    outbox.remove(tx, [message.id for message in waiting])
    return [(message.topic.removeprefix("$aws/things/"), msgspec.json.decode(message.payload)) for message in waiting]


def statuses(tx: sqlalchemy.Connection) -> dict[tuple[str, str], str]:
    """Status by (job, thing)."""
    table = schema.job_executions
    return {(row.job_id, row.thing): row.status for row in tx.execute(select(table))}


def deployment(tx: sqlalchemy.Connection, deployment_id: str) -> tuple[str, bool]:
    """Status and whether it is the target's latest."""
    table = schema.deployments
    row = tx.execute(select(table).where(table.c.id == deployment_id)).one()
    return row.status, row.is_latest
