"""Job executions of the Greengrass namespace: their states, their order, and the messages that tell a device of them.

Source: spec/cloud.md 3.2. QUEUED -> IN_PROGRESS -> SUCCEEDED | FAILED | REJECTED by the device; CANCELED, REMOVED and
TIMED_OUT by the service. A terminal execution refuses every update. Times on the wire are whole epoch seconds: nucleus
lite reads integers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from nucleus.wire import jobs

QUEUED = "QUEUED"
IN_PROGRESS = "IN_PROGRESS"
CANCELED = "CANCELED"
REMOVED = "REMOVED"
PENDING = (QUEUED, IN_PROGRESS)
BY_DEVICE = frozenset({IN_PROGRESS, "SUCCEEDED", "FAILED", "REJECTED"})

_LISTED = 10  # pending executions in one notify (iotdoc, jobs limits)
_DETAIL_CHARS = 1024  # of a value in statusDetails (iotdoc, jobs limits)
_DETAILS = 32  # entries kept; the nuclei send four


class Execution(Struct, frozen=True):
    """One job's execution on one thing, as the store keeps it."""

    job_id: str
    thing: str
    deployment_id: str
    status: str
    details: dict[str, str]
    queued_ms: int
    started_ms: int | None
    updated_ms: int
    version: int
    number: int


class Refused(Struct, frozen=True):
    """An error code of the jobs protocol and one readable sentence."""

    code: str
    message: str


class _State(Struct, rename="camel"):
    status: str
    status_details: dict[str, str]
    version_number: int


class _Summary(Struct, rename="camel", omit_defaults=True):
    job_id: str
    queued_at: int
    last_updated_at: int
    execution_number: int
    version_number: int
    started_at: int | None = None


class _Described(Struct, rename="camel", omit_defaults=True):
    # Every member but the last two is always written: clients other than ours have no defaults.
    job_id: str
    thing_name: str
    status: str
    status_details: dict[str, str]
    queued_at: int
    last_updated_at: int
    version_number: int
    execution_number: int
    started_at: int | None = None
    job_document: msgspec.Raw | None = None


class _Answer(Struct, rename="camel", omit_defaults=True):
    timestamp: int
    client_token: str | None = None
    execution: _Described | None = None
    execution_state: _State | None = None
    job_document: msgspec.Raw | None = None
    code: str | None = None
    message: str | None = None


def in_order(pending: Sequence[Execution]) -> list[Execution]:
    """IN_PROGRESS before QUEUED, each oldest first: the first one is what `$next` means."""
    return sorted(pending, key=lambda one: (one.status != IN_PROGRESS, one.queued_ms, one.job_id))


def queue_time(now_ms: int, last_ms: int) -> int:
    """The `queued_ms` of a new execution on a thing whose newest one was queued at `last_ms`.

    It grows by at least one whole second, since the wire has seconds and the Java nucleus drops what is not newer.
    """
    return max(now_ms, (last_ms // 1000 + 1) * 1000)


def apply(current: Execution | None, update: jobs.JobUpdate, now_ms: int) -> Execution | Refused:
    """The execution after a device's update, or why it stays as it is."""
    if current is None:
        return Refused("ResourceNotFound", "cannot update the job execution: this thing has no such job")
    if current.status in jobs.TERMINAL:
        return Refused("InvalidStateTransition", f"cannot update job {current.job_id}: it is {current.status} already")
    if update.status not in BY_DEVICE:
        allowed = ", ".join(sorted(BY_DEVICE))
        return Refused(
            "InvalidRequest",
            f"cannot set job {current.job_id} to {update.status[:32]!r}: a device may set {allowed}",
        )
    if update.expected_version is not None and update.expected_version != current.version:
        return Refused(
            "VersionMismatch",
            f"cannot update job {current.job_id}: expected version {update.expected_version}, it is {current.version}",
        )
    details = current.details if update.status_details is None else _bounded(update.status_details)
    started_ms = now_ms if current.started_ms is None else current.started_ms
    return msgspec.structs.replace(
        current,
        status=update.status,
        details=details,
        started_ms=started_ms,
        updated_ms=now_ms,
        version=current.version + 1,
    )


def ended(current: Execution, status: str, now_ms: int) -> Execution:
    """The execution after the service itself ended it (CANCELED, REMOVED)."""
    return msgspec.structs.replace(current, status=status, updated_ms=now_ms, version=current.version + 1)


def list_changed(before: Sequence[Execution], after: Sequence[Execution]) -> bool:
    """Whether an execution was added to or left the pending list; QUEUED -> IN_PROGRESS is neither."""
    return {_identity(one) for one in before} != {_identity(one) for one in after}


def head_changed(before: Sequence[Execution], after: Sequence[Execution]) -> bool:
    """Whether `$next` means another execution now. Both lists are `in_order`."""
    return [_identity(one) for one in before[:1]] != [_identity(one) for one in after[:1]]


def notify(pending: Sequence[Execution], now_ms: int) -> bytes:
    """The list of pending executions; `{"jobs": {}}` says that none is left, or that the last one was cancelled."""
    listed: dict[str, list[_Summary]] = {}
    for one in pending[:_LISTED]:
        listed.setdefault(one.status, []).append(_summary(one))
    return msgspec.json.encode({"timestamp": now_ms // 1000, "jobs": listed})


def next_answer(head: Execution | None, document: bytes | None, token: str | None, now_ms: int) -> bytes:
    """`get/accepted` and `notify-next`; without `execution` when nothing is pending."""
    execution = None if head is None else _described(head, document)
    return msgspec.json.encode(_Answer(now_ms // 1000, client_token=token, execution=execution))


def update_answer(after: Execution, update: jobs.JobUpdate, document: bytes | None, now_ms: int) -> bytes:
    """`update/accepted`: state and document only where the request asked for them."""
    answer = _Answer(now_ms // 1000, client_token=update.client_token)
    if update.include_job_execution_state:
        answer.execution_state = _state(after)
    if update.include_job_document and document is not None:
        answer.job_document = msgspec.Raw(document)
    return msgspec.json.encode(answer)


def rejection(refused: Refused, token: str | None, current: Execution | None, now_ms: int) -> bytes:
    """`*/rejected`, with the execution's state where there is one."""
    state = None if current is None else _state(current)
    return msgspec.json.encode(
        _Answer(now_ms // 1000, client_token=token, execution_state=state, code=refused.code, message=refused.message)
    )


def client_token(payload: bytes) -> str | None:
    """The token of a request that may be invalid otherwise: a refusal must echo it too."""
    try:
        value = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return None
    token = value.get("clientToken")
    return token if isinstance(token, str) else None


def _identity(one: Execution) -> tuple[str, int]:
    return one.job_id, one.number


def _bounded(details: dict[str, str]) -> dict[str, str]:
    # Cut rather than refused: a device drops a refused result, and the operator would never learn how it ended.
    return {key[:128]: value[:_DETAIL_CHARS] for key, value in list(details.items())[:_DETAILS]}


def _state(one: Execution) -> _State:
    return _State(one.status, one.details, one.version)


def _summary(one: Execution) -> _Summary:
    return _Summary(
        one.job_id, one.queued_ms // 1000, one.updated_ms // 1000, one.number, one.version, _seconds(one.started_ms)
    )


def _described(one: Execution, document: bytes | None) -> _Described:
    return _Described(
        one.job_id,
        one.thing,
        one.status,
        one.details,
        one.queued_ms // 1000,
        one.updated_ms // 1000,
        one.version,
        one.number,
        _seconds(one.started_ms),
        None if document is None else msgspec.Raw(document),
    )


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
