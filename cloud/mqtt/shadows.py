"""Shadows over MQTT: get, update and delete of classic and named ones (spec/cloud.md 3.4).

The deployment shadow is one of them; what a device reports there is also the result of its thing's deployment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import sqlalchemy

from cloud.core import executions
from cloud.store import outbox, thing_deployments
from cloud.store import shadows as shadow_store
from nucleus.core import shadow
from nucleus.wire import jobs

_NAME = re.compile(r"[A-Za-z0-9:_-]{1,64}")  # iotdoc, shadow names


def handle(tx: sqlalchemy.Connection, thing: str, rest: Sequence[str], payload: bytes, now_ms: int) -> None:
    """Answers one request; `rest` are the levels after `shadow`. A topic that is no request is none of ours."""
    match rest:
        case [("get" | "update" | "delete") as verb]:
            name = ""
        case ["name", name, ("get" | "update" | "delete") as verb] if _NAME.fullmatch(name):
            pass
        case _:
            return
    if verb == "update":
        _update(tx, thing, name, payload, now_ms)
    elif verb == "get":
        _get(tx, thing, name, payload, now_ms)
    else:
        _delete(tx, thing, name, payload, now_ms)


def _get(tx: sqlalchemy.Connection, thing: str, name: str, payload: bytes, now_ms: int) -> None:
    token = executions.client_token(payload)
    held = shadow_store.find(tx, thing, name)
    topic = f"{jobs.shadow(thing, name)}/get"
    if held is None or held.deleted:
        outbox.put(tx, f"{topic}/rejected", shadow.rejection(_unknown(thing, name), token, now_ms), now_ms)
    else:
        outbox.put(tx, f"{topic}/accepted", shadow.whole(held, token, now_ms), now_ms)


def _update(tx: sqlalchemy.Connection, thing: str, name: str, payload: bytes, now_ms: int) -> None:
    request = shadow.read(payload)
    result = request if isinstance(request, shadow.Refused) else shadow_store.write(tx, thing, name, request, now_ms)
    if isinstance(result, shadow.Refused):
        refusal = shadow.rejection(result, executions.client_token(payload), now_ms)
        outbox.put(tx, f"{jobs.shadow(thing, name)}/update/rejected", refusal, now_ms)
    elif name == jobs.SHADOW and not isinstance(request, shadow.Refused) and request.state.get("reported"):
        thing_deployments.reported(tx, thing, result.state.get("reported"), now_ms)


def _delete(tx: sqlalchemy.Connection, thing: str, name: str, payload: bytes, now_ms: int) -> None:
    token = executions.client_token(payload)
    version = shadow_store.remove(tx, thing, name, now_ms)
    topic = f"{jobs.shadow(thing, name)}/delete"
    if version is None:
        outbox.put(tx, f"{topic}/rejected", shadow.rejection(_unknown(thing, name), token, now_ms), now_ms)
    else:
        outbox.put(tx, f"{topic}/accepted", shadow.gone(version, token, now_ms), now_ms)


def _unknown(thing: str, name: str) -> shadow.Refused:
    return shadow.Refused(404, f"No shadow exists with name: '{name or thing}'")
