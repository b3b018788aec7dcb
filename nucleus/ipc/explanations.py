"""Operations of ours for the command line: what a deployment would do, why the device has what it has (wire/extensions.py).

No policy can give them to a component: only CLI identities may call them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nucleus.core import authorization, configuration, explain, verdict
from nucleus.ipc import authorizer, call, deployments, ports
from nucleus.wire import rpc, shapes


async def plan(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Takes a CreateLocalDeploymentRequest; answers with an Outlook and changes nothing."""
    found = await _plans(one).plan(deployments.request_of(request))
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told


def why(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Answers with the Reasons of all installed components, or of `componentName`."""
    name = request.get("componentName", "")
    found = [reason for reason in _plans(one).why() if name in ("", reason.component)]
    if name and not found:
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot explain {name}: it is not on this device",
            resourceType="component",
            resourceName=name,
        )
    return {"components": msgspec.to_builtins(found)}


def origins(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Where each value of a component's configuration came from, at and below the key path."""
    name, key_path = request.get("componentName") or one.caller, request.get("keyPath", [])
    found = explain.origins(one.ports.configuration.tree, name, key_path)
    if found is None:
        where = "/".join((name, *key_path))
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot find {where} in the configuration",
            resourceType="configuration",
            resourceName=where,
        )
    return {"componentName": name, "values": msgspec.to_builtins(found)}


def _plans(one: call.Call) -> ports.Plans:
    if one.ports.plans is None:
        raise rpc.OperationError("ServiceError", "this nucleus has no deployer")
    return one.ports.plans


def access(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """What the policies say to `componentName` doing `operation` (with or without its prefix) to `resource`."""
    name, wanted, tree = request.get("componentName", ""), request.get("operation", ""), one.ports.configuration.tree
    operation = next((each for each in shapes.OPERATIONS if each.lower() == wanted.split("#")[-1].lower()), "")
    if not operation:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot explain {wanted}: there is no such operation")
    if configuration.find(tree, ("services", name)) is None:
        raise rpc.OperationError("ResourceNotFoundError", f"cannot explain {name}: it is not on this device")
    policies = authorization.read(authorizer.policies(tree))
    found = verdict.of(policies, name, rpc.NAMESPACE + operation, request.get("resource", ""))
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told
