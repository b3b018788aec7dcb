"""Core devices as their fleet status messages describe them, and what is deployed and installed on them."""

from __future__ import annotations

from typing import Any

from cloud.api import calls, errors
from cloud.store import fleet, tags


def listed(call: calls.Call) -> dict[str, Any]:
    """ListCoreDevices."""
    status, limit = call.first("status") or None, call.size()
    if status not in (None, "HEALTHY", "UNHEALTHY"):
        message = f"cannot list core devices: status {status!r} is neither HEALTHY nor UNHEALTHY"
        raise errors.validation(message, [("status", "HEALTHY or UNHEALTHY")])
    rows = fleet.core_devices(
        call.tx,
        group_arn=call.first("thingGroupArn") or None,
        status=status,
        runtime=call.first("runtime") or None,
        after=call.after(),
        limit=limit + 1,
    )
    kept, more = calls.page(rows, limit, lambda row: str(row["coreDeviceThingName"]))
    return {"coreDevices": kept, **more}


def get(call: calls.Call) -> dict[str, Any]:
    """GetCoreDevice."""
    thing = call.path["thing"]
    return _device(call) | {"tags": tags.read(call.tx, call.services.arn("greengrass", f"coreDevices:{thing}"))}


def delete(call: calls.Call) -> None:
    """DeleteCoreDevice: of the record; the thing stays, and a later status message makes the record again."""
    _device(call)
    fleet.forget(call.tx, call.path["thing"])
    tags.clear(call.tx, call.services.arn("greengrass", f"coreDevices:{call.path['thing']}"))


def effective_deployments(call: calls.Call) -> dict[str, Any]:
    """ListEffectiveDeployments. A device that never reported may already have deployments waiting for it."""
    rows = fleet.effective_deployments(call.tx, call.path["thing"])
    if not rows:
        _device(call)
    kept, more = calls.slice_page(call, rows)
    return {"effectiveDeployments": kept, **more}


def installed_components(call: calls.Call) -> dict[str, Any]:
    """ListInstalledComponents: the roots, or all of them."""
    wanted = call.first("topologyFilter", "ROOT")
    if wanted not in ("ROOT", "ALL"):
        message = f"cannot list components: topologyFilter {wanted!r} is neither ROOT nor ALL"
        raise errors.validation(message, [("topologyFilter", "ROOT or ALL")])
    _device(call)
    rows = fleet.installed_components(call.tx, call.path["thing"], roots_only=wanted == "ROOT")
    kept, more = calls.slice_page(call, rows)
    return {"installedComponents": kept, **more}


def _device(call: calls.Call) -> dict[str, Any]:
    thing = call.path["thing"]
    row = fleet.core_device(call.tx, thing)
    if row is None:
        message = f"cannot find core device {thing}: no device of this name has reported its status yet"
        raise errors.not_found(message, thing, "coreDevice")
    return row
