"""PutComponentMetric (spec/ipc.md 3): only for components whose names begin with `aws.`, each metric allowed by a policy."""

from __future__ import annotations

from typing import Any

from nucleus.actors import component_metrics
from nucleus.ipc import call
from nucleus.wire import rpc

RESERVED = "aws."
STREAM_MANAGER = "aws.greengrass.StreamManager"  # needs no policy


def names(one: call.Call, request: dict[str, Any]) -> tuple[str, ...]:
    """What a policy must allow: each metric; nothing for the stream manager. Raises OperationError for other callers."""
    if not one.caller.startswith(RESERVED):
        what = f"{one.caller} must not put metrics: only components whose names begin with {RESERVED} may"
        raise rpc.OperationError("UnauthorizedError", what)
    found = tuple(each["name"] for each in request["metrics"])
    if not found or not all(found):
        raise rpc.OperationError("InvalidArgumentsError", "cannot put metrics: there are none, or one has no name")
    return () if one.caller == STREAM_MANAGER else found


def put(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Takes all metrics of the request, or none."""
    metrics = ((each["name"], each["unit"], each["value"]) for each in request["metrics"])
    try:
        one.ports.metrics.put(one.caller, metrics)
    except component_metrics.Full as error:
        raise rpc.OperationError("ServiceError", f"cannot put metrics: {error}") from None
    return {}
