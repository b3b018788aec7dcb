"""Deployments on their way to devices: opening, cancelling, membership, and the updates that devices send.

A group's deployment is a continuous job: an execution for every member, also for those that join later. A thing's
deployment travels in its shadow (`cloud.store.thing_deployments`). Each function writes its messages in the same `tx`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import select, update

from cloud.core import executions, rollout
from cloud.store import executions as execution_store
from cloud.store import outbox, schema, thing_deployments
from nucleus.wire import jobs


def open_deployment(tx: sqlalchemy.Connection, deployment_id: str, now_ms: int) -> None:
    """Sends a deployment that was just written on its way and retires the one before it.

    QUEUED executions of earlier revisions of the target are CANCELED; one that is IN_PROGRESS carries on, and its
    device gets the new revision next. Raises LookupError for an unknown id, ValueError for a bad target.
    """
    row = _deployment(tx, deployment_id)
    target = rollout.target(row.target_arn)
    _retire_earlier(tx, row)
    if target.kind == rollout.THING:
        thing_deployments.open_deployment(tx, deployment_id, target.name, row.document, now_ms)
        return
    members = _members(tx, target.name)
    stopped = execution_store.queued_before(tx, row.target_arn, row.revision)
    concerned = {*members, *(one.thing for one in stopped)}
    with execution_store.announcing(tx, concerned, now_ms):
        execution_store.save(tx, [executions.ended(one, executions.CANCELED, now_ms) for one in stopped])
        _enqueue(tx, row, rollout.admit(members, admitted=0), now_ms)


def cancel_deployment(tx: sqlalchemy.Connection, deployment_id: str, now_ms: int) -> None:
    """Stops a deployment for every device that did not begin it; those that did carry on.

    Nothing happens to one that is not ACTIVE. Raises LookupError for an unknown id.
    """
    row = _deployment(tx, deployment_id)
    if row.status != rollout.ACTIVE:
        return
    table = schema.deployments
    tx.execute(update(table).where(table.c.id == deployment_id).values(status=rollout.CANCELED))
    target = rollout.target(row.target_arn)
    if target.kind == rollout.THING:
        thing_deployments.cancel(tx, deployment_id, target.name, now_ms)
        return
    stopped = execution_store.of_deployments(tx, [deployment_id], (executions.QUEUED,))
    with execution_store.announcing(tx, (one.thing for one in stopped), now_ms):
        execution_store.save(tx, [executions.ended(one, executions.CANCELED, now_ms) for one in stopped])


def thing_joined(tx: sqlalchemy.Connection, group: str, thing: str, now_ms: int) -> None:
    """Gives a new member the newest deployment of the group and of the groups above it; again if it was here before."""
    with execution_store.announcing(tx, [thing], now_ms):
        for row in _open_jobs(tx, [group, *_above(tx, group)]):
            held = execution_store.find(tx, thing, row.job_id)
            if held is None:
                _enqueue(tx, row, (thing,), now_ms)
            elif held.status in jobs.TERMINAL:
                execution_store.save(tx, [_again(tx, held, now_ms)])


def thing_left(tx: sqlalchemy.Connection, group: str, thing: str, now_ms: int) -> None:
    """Removes what a former member has not finished of the group's deployments, and of those of the groups above."""
    groups = [name for name in (group, *_above(tx, group)) if not _is_member(tx, name, thing, but=group)]
    if not groups:
        return
    table = schema.deployments
    ids = list(tx.execute(select(table.c.id).where(table.c.target_arn.in_(_targets(tx, groups)))).scalars())
    pending = execution_store.of_deployments(tx, ids, executions.PENDING)
    mine = [one for one in pending if one.thing == thing]
    with execution_store.announcing(tx, [thing], now_ms):
        execution_store.save(tx, [executions.ended(one, executions.REMOVED, now_ms) for one in mine])


def device_connected(tx: sqlalchemy.Connection, thing: str, now_ms: int) -> None:
    """Tells a device that came back what waits for it: what was sent while it was away may be lost."""
    execution_store.announce(tx, thing, now_ms)


def get(
    tx: sqlalchemy.Connection, thing: str, job_id: str, *, with_document: bool, token: str | None, now_ms: int
) -> bytes:
    """The payload of `get/accepted` for `$next` or a job's id. Raises LookupError if the thing has no such job."""
    head: executions.Execution | None
    if job_id == "$next":
        head = next(iter(execution_store.pending(tx, [thing])[thing]), None)
    else:
        head = execution_store.find(tx, thing, job_id)
        if head is None:
            raise LookupError(f"cannot describe job {job_id!r}: {thing} has no such job")
    document = execution_store.document(tx, head.deployment_id) if head is not None and with_document else None
    return executions.next_answer(head, document, token, now_ms)


def apply_update(tx: sqlalchemy.Connection, thing: str, job_id: str, request: jobs.JobUpdate, now_ms: int) -> bool:
    """Takes a device's update and answers it in the outbox; False if it was refused."""
    topic = jobs.update(thing, job_id)
    before = execution_store.find(tx, thing, job_id)
    after = executions.apply(before, request, now_ms)
    if isinstance(after, executions.Refused):
        refusal = executions.rejection(after, request.client_token, before, now_ms)
        outbox.put(tx, f"{topic}/rejected", refusal, now_ms)
        return False
    document = execution_store.document(tx, after.deployment_id) if request.include_job_document else None
    outbox.put(tx, f"{topic}/accepted", executions.update_answer(after, request, document, now_ms), now_ms)
    with execution_store.announcing(tx, [thing], now_ms):
        execution_store.save(tx, [after])
    return True


def _deployment(tx: sqlalchemy.Connection, deployment_id: str) -> Any:
    table = schema.deployments
    row = tx.execute(select(table).where(table.c.id == deployment_id)).first()
    if row is None:
        raise LookupError(f"cannot find deployment {deployment_id!r}")
    return row


def _retire_earlier(tx: sqlalchemy.Connection, row: Any) -> None:
    """Marks all earlier revisions of a target as not the latest, and those still ACTIVE as superseded."""
    table = schema.deployments
    earlier = (table.c.target_arn == row.target_arn, table.c.revision < row.revision)
    active = table.c.status == rollout.ACTIVE
    tx.execute(update(table).where(*earlier, table.c.is_latest.is_(True)).values(is_latest=False))
    tx.execute(update(table).where(*earlier, active).values(status=rollout.SUPERSEDED))
    tx.execute(update(table).where(table.c.id == row.id).values(is_latest=True))


def _enqueue(tx: sqlalchemy.Connection, row: Any, things: Iterable[str], now_ms: int) -> None:
    new = [
        executions.Execution(
            job_id=row.job_id,
            thing=thing,
            deployment_id=row.id,
            status=executions.QUEUED,
            details={},
            queued_ms=executions.queue_time(now_ms, last_ms),
            started_ms=None,
            updated_ms=now_ms,
            version=1,
            number=1,
        )
        for thing, last_ms in execution_store.last_queued(tx, things).items()
    ]
    execution_store.add(tx, new)


def _again(tx: sqlalchemy.Connection, held: executions.Execution, now_ms: int) -> executions.Execution:
    last_ms = execution_store.last_queued(tx, [held.thing])[held.thing]
    return msgspec.structs.replace(
        held,
        status=executions.QUEUED,
        details={},
        queued_ms=executions.queue_time(now_ms, last_ms),
        started_ms=None,
        updated_ms=now_ms,
        version=held.version + 1,
        number=held.number + 1,
    )


def _open_jobs(tx: sqlalchemy.Connection, groups: list[str]) -> list[Any]:
    table = schema.deployments
    where = (
        table.c.target_arn.in_(_targets(tx, groups)),
        table.c.is_latest.is_(True),
        table.c.status == rollout.ACTIVE,
    )
    return list(tx.execute(select(table).where(*where).order_by(table.c.created_ms)))


def _targets(tx: sqlalchemy.Connection, groups: list[str]) -> list[str]:
    """ARNs of the groups, of those that ever had a deployment."""
    arn = schema.deployments.c.target_arn
    likely = sqlalchemy.or_(*(arn.endswith(f":{rollout.GROUP}/{name}", autoescape=True) for name in groups))
    # LIKE looks neither at case (SQLite) nor at the kind of target: what it finds is looked at again.
    found = [rollout.target(one) for one in tx.execute(select(arn).where(likely).distinct()).scalars()]
    return [one.arn() for one in found if one.kind == rollout.GROUP and one.name in groups]


def _members(tx: sqlalchemy.Connection, group: str) -> list[str]:
    """Things in the group or in a group below it, sorted."""
    table = schema.group_members
    where = table.c.group_name.in_([group, *_below(tx, group)])
    return sorted(set(tx.execute(select(table.c.thing).where(where)).scalars()))


def _is_member(tx: sqlalchemy.Connection, group: str, thing: str, *, but: str) -> bool:
    """Whether the thing is in the group or below it through another group than `but`."""
    table = schema.group_members
    groups = [name for name in (group, *_below(tx, group)) if name != but]
    where = (table.c.group_name.in_(groups), table.c.thing == thing)
    return tx.execute(select(table.c.thing).where(*where)).first() is not None


def _below(tx: sqlalchemy.Connection, group: str) -> list[str]:
    table = schema.thing_groups
    found: list[str] = []
    level = [group]
    while level:
        children = tx.execute(select(table.c.name).where(table.c.parent.in_(level))).scalars()
        level = [name for name in children if name not in found and name != group]
        found.extend(level)
    return found


def _above(tx: sqlalchemy.Connection, group: str) -> list[str]:
    table = schema.thing_groups
    found: list[str] = []
    parent = tx.execute(select(table.c.parent).where(table.c.name == group)).scalar()
    while parent and parent not in found and parent != group:
        found.append(parent)
        parent = tx.execute(select(table.c.parent).where(table.c.name == parent)).scalar()
    return found
