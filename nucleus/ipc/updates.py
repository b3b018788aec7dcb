"""SubscribeToComponentUpdates, DeferComponentUpdate, and the two operations of configuration validation (spec/ipc.md 3.3)."""

from __future__ import annotations

from typing import Any

from nucleus.actors import consent
from nucleus.ipc import call
from nucleus.wire import rpc


def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Pre and post events from now on; a question that is open already comes at once."""
    _require_component(one, "listen to component updates")
    one.on_end(one.ports.consent.subscribe(one.caller, one.emit))
    return {}


def defer(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    _require_component(one, "defer a component update")
    deployment_id, recheck = request["deploymentId"], request.get("recheckAfterMs")
    try:
        one.ports.consent.defer(one.caller, deployment_id, recheck, request.get("message", ""))
    except consent.NotSubscribed:
        what = (
            f"cannot defer: {one.caller} is not subscribed to component updates; call SubscribeToComponentUpdates first"
        )
        raise rpc.OperationError("InvalidArgumentsError", what) from None
    except consent.NotAsked:
        what = f"cannot defer deployment {deployment_id}: it does not wait for an answer (any more)"
        raise rpc.OperationError("ServiceError", what) from None
    return {}


def subscribe_to_validation(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    if one.ports.components.component(one.caller) is None:
        raise rpc.OperationError("ServiceError", f"cannot validate configurations: {one.caller} is no component")
    one.on_end(one.ports.validation.subscribe(one.caller, one.emit))
    return {}


def report_validity(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    report = request["configurationValidityReport"]
    accepted, message = report["status"] == "ACCEPTED", report.get("message", "")
    try:
        one.ports.validation.report(one.caller, report["deploymentId"], accepted, message)
    except consent.NotAsked:
        what = f"cannot report for deployment {report['deploymentId']}: it does not wait for {one.caller} (any more)"
        raise rpc.OperationError("InvalidArgumentsError", what) from None
    return {}


def _require_component(one: call.Call, what: str) -> None:
    if one.ports.components.component(one.caller) is None:
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot {what}: {one.caller} is no component",
            resourceType="component",
            resourceName=one.caller,
        )
