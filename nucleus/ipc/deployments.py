"""CreateLocalDeployment, CancelLocalDeployment, GetLocalDeploymentStatus, ListLocalDeployments (spec/ipc.md 3)."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Any

from nucleus.core import component, local
from nucleus.ipc import call
from nucleus.wire import rpc


async def create(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Hands the request to the deployer, which answers with an id as soon as the deployment is queued."""
    return {"deploymentId": await one.ports.deployments.create_local(request_of(request), one.caller)}


def status(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    return {"deployment": _describe(_find(one, request["deploymentId"]))}


def cancel(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Cancels by id, queued or running; what was changed already is restored first, so ask for the status after it."""
    found = _find(one, request.get("deploymentId", ""))
    if not one.ports.deployments.cancel_local(found.deployment_id):
        how = "it is on its way back or just ending" if found.status == "IN_PROGRESS" else f"it is {found.status}"
        what = f"cannot cancel deployment {found.deployment_id}: {how}"
        raise rpc.OperationError("InvalidArgumentsError", what)
    return {"message": f"deployment {found.deployment_id} is being cancelled"}


def _find(one: call.Call, deployment_id: str) -> local.LocalStatus:
    try:
        uuid.UUID(deployment_id)
    except ValueError:
        what = f"cannot find deployment {deployment_id!r}: the id is no UUID"
        raise rpc.OperationError("InvalidArgumentsError", what) from None
    found = one.ports.deployments.status(deployment_id)
    if found is None:
        raise rpc.OperationError(
            "ResourceNotFoundError",
            f"cannot find deployment {deployment_id}: it was not made on this device or is long over",
            resourceType="deployment",
            resourceName=deployment_id,
        )
    return found


def list_all(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    return {"localDeployments": [_describe(each) for each in one.ports.deployments.list()]}


def request_of(request: dict[str, Any]) -> local.LocalRequest:
    """A checked CreateLocalDeploymentRequest as a value. Raises OperationError for what the shape cannot say."""
    updates = request.get("componentToConfiguration", {})
    for name, update in updates.items():
        if not isinstance(update, dict) or not set(update) <= {"MERGE", "RESET"}:
            what = f"cannot configure {name}: an update has the keys MERGE and RESET and no other"
            raise rpc.OperationError("InvalidArgumentsError", what)
    return local.LocalRequest(
        group=request.get("groupName", ""),
        add=request.get("rootComponentVersionsToAdd", {}),
        remove=tuple(request.get("rootComponentsToRemove", ())),
        updates=updates,
        run_with={name: _run_with(one) for name, one in request.get("componentToRunWithInfo", {}).items()},
        recipe_directory=_directory(request, "recipeDirectoryPath", "InvalidRecipeDirectoryPathError"),
        artifacts_directory=_directory(request, "artifactsDirectoryPath", "InvalidArtifactsDirectoryPathError"),
        failure_policy=request.get("failureHandlingPolicy", ""),
    )


def _run_with(one: dict[str, Any]) -> component.RunWith:
    limits = one.get("systemResourceLimits", {})
    return component.RunWith(
        posix_user=one.get("posixUser", ""), memory_kb=limits.get("memory", 0), cpus=limits.get("cpus", 0.0)
    )


def _directory(request: dict[str, Any], member: str, shape: str) -> str:
    path = request.get(member, "")
    if path and not (Path(path).is_absolute() and Path(path).is_dir()):
        raise rpc.OperationError(shape, f"cannot use {path}: it is no folder on this device, or not absolute")
    return str(path)


def _describe(found: local.LocalStatus) -> dict[str, Any]:
    """A LocalDeployment; `createdOn` in the original's form dd-MM-yyyy HH:mm:ss z."""
    created = datetime.datetime.fromtimestamp(found.created_at, datetime.UTC)
    described: dict[str, Any] = {
        "deploymentId": found.deployment_id,
        "status": found.status,
        "createdOn": created.strftime("%d-%m-%Y %H:%M:%S UTC"),
    }
    if found.detail and found.detail != found.status:  # CANCELED has no word in DetailedDeploymentStatus
        described["deploymentStatusDetails"] = {
            "detailedDeploymentStatus": found.detail,
            "deploymentErrorStack": list(found.error_stack),
            "deploymentErrorTypes": list(found.error_types),
            "deploymentFailureCause": found.failure_cause,
        }
    return described
