"""GET /marram/v1/deployments/{deploymentId}/devices: a deployment on each of its devices, which AWS's API asks one by one."""

from __future__ import annotations

from typing import Any

from cloud.api import calls, errors
from cloud.store import deployments, progress


def devices(call: calls.Call) -> dict[str, Any]:
    """The devices by name, with what each waits for in `statusDetails` under `marram-waiting-for`."""
    deployment_id = call.path["deploymentId"]
    row = deployments.get(call.tx, deployment_id)
    if row is None:
        raise errors.not_found(f"cannot find deployment {deployment_id}", deployment_id, "deployment")
    return {
        "deploymentId": row["id"],
        "targetArn": row["target_arn"],
        "status": row["status"],
        "devices": progress.of_deployment(call.tx, deployment_id),
    }
