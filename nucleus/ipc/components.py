"""GetComponentDetails and ListComponents (spec/ipc.md 3)."""

from __future__ import annotations

from typing import Any

from nucleus.core import configuration
from nucleus.ipc import call, ports
from nucleus.wire import rpc


def details(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    name = request["componentName"]
    if not name:
        raise rpc.OperationError("InvalidArgumentsError", "cannot find the component: its name is empty")
    health = _all(one.ports).get(name)
    if health is None:
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot find component {name}: it is not on this device",
            resourceType="component",
            resourceName=name,
        )
    return {"componentDetails": _details(one.ports, name, health)}


def list_all(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """All components on the device, by name."""
    health = sorted(_all(one.ports).items())
    return {"components": [_details(one.ports, name, each) for name, each in health]}


def _all(known: ports.Ports) -> dict[str, ports.Health]:
    return {**known.built_ins(), **known.components.health()}


def _details(known: ports.Ports, name: str, health: ports.Health) -> dict[str, Any]:
    values = configuration.plain(configuration.subtree(known.configuration.tree, ("services", name, "configuration")))
    return {"componentName": name, "version": health.version, "state": health.state.name, "configuration": values}
