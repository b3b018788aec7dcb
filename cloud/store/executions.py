"""Rows of job executions: reading, writing, and telling the devices whose list of pending executions changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import func, insert, select, update

from cloud.core import executions
from cloud.store import outbox, schema
from nucleus.wire import jobs

_table = schema.job_executions
_IN = 500  # values in one IN (...): far below the limit of variables of every database


def find(tx: sqlalchemy.Connection, thing: str, job_id: str) -> executions.Execution | None:
    row = tx.execute(select(_table).where(_table.c.thing == thing, _table.c.job_id == job_id)).first()
    return None if row is None else _read(row)


def of_job(tx: sqlalchemy.Connection, job_id: str) -> list[executions.Execution]:
    return [_read(row) for row in tx.execute(select(_table).where(_table.c.job_id == job_id))]


def of_thing(tx: sqlalchemy.Connection, thing: str) -> list[executions.Execution]:
    return [_read(row) for row in tx.execute(select(_table).where(_table.c.thing == thing))]


def of_deployments(
    tx: sqlalchemy.Connection, deployment_ids: Sequence[str], statuses: Sequence[str]
) -> list[executions.Execution]:
    """Executions in one of the states, of any of the deployments."""
    found: list[executions.Execution] = []
    for some in _portions(deployment_ids):
        where = (_table.c.deployment_id.in_(some), _table.c.status.in_(statuses))
        found.extend(_read(row) for row in tx.execute(select(_table).where(*where)))
    return found


def queued_before(tx: sqlalchemy.Connection, target_arn: str, revision: int) -> list[executions.Execution]:
    """QUEUED executions of a target's earlier revisions."""
    table = schema.deployments
    query = select(_table).join(table, table.c.id == _table.c.deployment_id)
    where = (table.c.target_arn == target_arn, table.c.revision < revision, _table.c.status == executions.QUEUED)
    return [_read(row) for row in tx.execute(query.where(*where))]


def pending(tx: sqlalchemy.Connection, things: Iterable[str]) -> dict[str, list[executions.Execution]]:
    """What each thing has still to do, in the order of `$next`; a thing without anything has an empty list."""
    found: dict[str, list[executions.Execution]] = {thing: [] for thing in things}
    for some in _portions(list(found)):
        where = (_table.c.thing.in_(some), _table.c.status.in_(executions.PENDING))
        for row in tx.execute(select(_table).where(*where)):
            found[row.thing].append(_read(row))
    return {thing: executions.in_order(listed) for thing, listed in found.items()}


def last_queued(tx: sqlalchemy.Connection, things: Iterable[str]) -> dict[str, int]:
    """`queued_ms` of each thing's newest execution ever; 0 for none."""
    found = dict.fromkeys(things, 0)
    for some in _portions(list(found)):
        newest = select(_table.c.thing, func.max(_table.c.queued_ms)).where(_table.c.thing.in_(some))
        for thing, queued_ms in tx.execute(newest.group_by(_table.c.thing)):
            found[thing] = queued_ms
    return found


def add(tx: sqlalchemy.Connection, new: Sequence[executions.Execution]) -> None:
    if new:
        tx.execute(insert(_table), [_row(one) for one in new])


def save(tx: sqlalchemy.Connection, changed: Sequence[executions.Execution]) -> None:
    for one in changed:
        where = (_table.c.job_id == one.job_id, _table.c.thing == one.thing)
        tx.execute(update(_table).where(*where).values(_row(one)))


def document(tx: sqlalchemy.Connection, deployment_id: str) -> bytes | None:
    """The job document as it is sent; None if the deployment is gone."""
    table = schema.deployments
    text = tx.execute(select(table.c.document).where(table.c.id == deployment_id)).scalar()
    return None if text is None else str(text).encode()


@contextmanager
def announcing(tx: sqlalchemy.Connection, things: Iterable[str], now_ms: int) -> Iterator[None]:
    """Puts `notify` and `notify-next` in the outbox for each of the things whose pending list the block changes."""
    concerned = sorted(set(things))
    before = pending(tx, concerned)
    yield
    documents: dict[str, bytes | None] = {}
    messages: list[tuple[str, bytes]] = []
    for thing, after in pending(tx, concerned).items():
        if executions.list_changed(before[thing], after):
            messages.append((jobs.notify(thing), executions.notify(after, now_ms)))
        if executions.head_changed(before[thing], after):
            messages.append((jobs.notify_next(thing), _next(tx, after, documents, now_ms)))
    outbox.put_all(tx, messages, now_ms)


def announce(tx: sqlalchemy.Connection, thing: str, now_ms: int) -> None:
    """Tells a device what it has to do, unless it has nothing to do."""
    listed = pending(tx, [thing])[thing]
    if listed:
        messages = [
            (jobs.notify(thing), executions.notify(listed, now_ms)),
            (jobs.notify_next(thing), _next(tx, listed, {}, now_ms)),
        ]
        outbox.put_all(tx, messages, now_ms)


def _next(
    tx: sqlalchemy.Connection,
    listed: Sequence[executions.Execution],
    documents: dict[str, bytes | None],
    now_ms: int,
) -> bytes:
    if not listed:
        return executions.next_answer(None, None, None, now_ms)
    head = listed[0]
    if head.deployment_id not in documents:
        documents[head.deployment_id] = document(tx, head.deployment_id)
    return executions.next_answer(head, documents[head.deployment_id], None, now_ms)


def _portions(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in itertools.count(0, _IN):
        some = values[start : start + _IN]
        if not some:
            return
        yield some


def _read(row: Any) -> executions.Execution:
    return executions.Execution(
        job_id=row.job_id,
        thing=row.thing,
        deployment_id=row.deployment_id,
        status=row.status,
        details=msgspec.json.decode(row.status_details, type=dict[str, str]),
        queued_ms=row.queued_ms,
        started_ms=row.started_ms,
        updated_ms=row.updated_ms,
        version=row.version,
        number=row.execution_number,
    )


def _row(one: executions.Execution) -> dict[str, Any]:
    return {
        "job_id": one.job_id,
        "thing": one.thing,
        "deployment_id": one.deployment_id,
        "status": one.status,
        "status_details": msgspec.json.encode(one.details).decode(),
        "queued_ms": one.queued_ms,
        "started_ms": one.started_ms,
        "updated_ms": one.updated_ms,
        "version": one.version,
        "execution_number": one.number,
    }
