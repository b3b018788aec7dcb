"""UpdateState, RestartComponent, StopComponent, PauseComponent and ResumeComponent (spec/ipc.md 3, spec/nucleus.md 2.9).

An unknown component is the error that the model declares for the operation, because the JavaScript client decodes no other:
ComponentNotFoundError to restart and stop (where the original sends ResourceNotFoundError), else ResourceNotFoundError.
"""

from __future__ import annotations

from typing import Any

from nucleus.host import confine
from nucleus.ipc import call
from nucleus.wire import rpc


def update_state(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """The caller reports its own state; whether that means anything now is the supervisor's affair."""
    _there(one, one.caller)
    one.ports.components.report(one.caller, request["state"])
    return {}


def restart(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    name = _known(one, request["componentName"])
    return _status("restartStatus", one.ports.components.restart(name), f"cannot restart {name} now")


def stop(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    name = _known(one, request["componentName"])
    return _status("stopStatus", one.ports.components.stop_component(name), f"cannot stop {name} now")


async def pause(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    name = _there(one, request["componentName"])
    try:
        await one.ports.components.pause(name)
    except confine.Unavailable as error:
        raise rpc.OperationError("ServiceError", f"cannot pause {name}: {error}") from None
    return {}


async def resume(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    name = _there(one, request["componentName"])
    try:
        await one.ports.components.resume(name)
    except confine.Unavailable as error:
        raise rpc.OperationError("ServiceError", f"cannot resume {name}: {error}; it is restarted") from None
    return {}


def restart_nucleus(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Restarts the daemon under its components: they and their connections stay (nucleus/passing.py)."""
    if one.ports.restart is None:
        raise rpc.OperationError("ServiceError", "cannot restart the nucleus: it is not there")
    one.ports.restart()
    return {}


def _there(one: call.Call, name: str) -> str:
    """The same name. Raises ResourceNotFoundError."""
    if one.ports.components.component(name) is None:
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot find component {name}: it is not on this device",
            resourceType="component",
            resourceName=name,
        )
    return name


def _known(one: call.Call, name: str) -> str:
    """The same name. Raises ComponentNotFoundError."""
    if not name:
        raise rpc.OperationError("InvalidArgumentsError", "cannot find the component: its name is empty")
    if one.ports.components.component(name) is None:
        raise rpc.OperationError("ComponentNotFoundError", f"cannot find component {name}: it is not on this device")
    return name


def _status(member: str, done: bool, why: str) -> dict[str, Any]:
    return {member: "SUCCEEDED"} if done else {member: "FAILED", "message": why}
