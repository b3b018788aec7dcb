"""Jobs over MQTT: `$next/get`, `<job>/get` and `<job>/update` in the Greengrass namespace (spec/cloud.md 3.2).

Other namespaces have no jobs here: they are answered as an account without any would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import sqlalchemy
from msgspec import Struct

from cloud.core import executions
from cloud.store import jobs as job_store
from cloud.store import outbox
from nucleus.wire import jobs

_INFIX = f"namespace-{jobs.NAMESPACE}"
_Request = TypeVar("_Request")


class _Get(Struct, rename="camel"):
    include_job_document: bool = True
    client_token: str | None = None


class _Nothing(Struct, rename="camel", omit_defaults=True):
    timestamp: int
    in_progress_jobs: tuple[()]
    queued_jobs: tuple[()]
    client_token: str | None = None


def handle(tx: sqlalchemy.Connection, thing: str, rest: Sequence[str], payload: bytes, now_ms: int) -> None:
    """Answers one request; `rest` are the levels after `jobs`. A topic that is no request is none of ours."""
    match rest:
        case [job_id, namespace, "get"] if namespace == _INFIX:
            _get(tx, thing, job_id, payload, now_ms)
        case [job_id, namespace, "update"] if namespace == _INFIX:
            _update(tx, thing, job_id, payload, now_ms)
        case ["get"] | ["$next", "get"] | ["start-next"]:
            _answer_nothing(tx, thing, rest, payload, now_ms)
        case [_, "get" | "update"]:
            refused = executions.Refused("ResourceNotFound", "this thing has no such job")
            _reject(tx, "/".join([jobs.jobs_prefix(thing), *rest]), refused, payload, now_ms)


def connected(tx: sqlalchemy.Connection, client_id: str, now_ms: int) -> None:
    """Re-arms the notify of the device that came; its further connections (`<thing>#2`) add nothing."""
    job_store.device_connected(tx, client_id, now_ms)


def _get(tx: sqlalchemy.Connection, thing: str, job_id: str, payload: bytes, now_ms: int) -> None:
    topic = f"{jobs.jobs_prefix(thing)}/{job_id}/{_INFIX}/get"
    request = _read(payload, _Get)
    if isinstance(request, executions.Refused):
        _reject(tx, topic, request, payload, now_ms)
        return
    try:
        answer = job_store.get(
            tx,
            thing,
            job_id,
            with_document=request.include_job_document,
            token=request.client_token,
            now_ms=now_ms,
        )
    except LookupError as error:
        _reject(tx, topic, executions.Refused("ResourceNotFound", str(error)), payload, now_ms)
        return
    outbox.put(tx, f"{topic}/accepted", answer, now_ms)


def _update(tx: sqlalchemy.Connection, thing: str, job_id: str, payload: bytes, now_ms: int) -> None:
    request = _read(payload, jobs.JobUpdate)
    if isinstance(request, executions.Refused):
        _reject(tx, jobs.update(thing, job_id), request, payload, now_ms)
        return
    job_store.apply_update(tx, thing, job_id, request, now_ms)


def _answer_nothing(tx: sqlalchemy.Connection, thing: str, rest: Sequence[str], payload: bytes, now_ms: int) -> None:
    topic = "/".join([jobs.jobs_prefix(thing), *rest])
    token = executions.client_token(payload)
    if rest == ["get"]:
        answer = msgspec.json.encode(_Nothing(now_ms // 1000, (), (), token))
    else:
        answer = executions.next_answer(None, None, token, now_ms)
    outbox.put(tx, f"{topic}/accepted", answer, now_ms)


def _read(payload: bytes, kind: type[_Request]) -> _Request | executions.Refused:
    try:
        return msgspec.json.decode(payload or b"{}", type=kind)  # AWS takes an empty payload for an empty request
    except msgspec.ValidationError as error:
        return executions.Refused("InvalidRequest", f"cannot read the request: {error}")
    except (msgspec.DecodeError, RecursionError):
        return executions.Refused("InvalidJson", "cannot read the request: the payload is not valid JSON")


def _reject(tx: sqlalchemy.Connection, topic: str, refused: executions.Refused, payload: bytes, now_ms: int) -> None:
    answer = executions.rejection(refused, executions.client_token(payload), None, now_ms)
    outbox.put(tx, f"{topic}/rejected", answer, now_ms)
