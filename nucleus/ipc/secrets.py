"""GetSecretValue (spec/ipc.md 3): the resource is the ARN of the configured secret, whatever names it."""

from __future__ import annotations

import binascii
from typing import Any

from nucleus.core import errors, secrets
from nucleus.ipc import call, ports
from nucleus.wire import rpc


async def resource(one: call.Call, request: dict[str, Any]) -> str:
    """The ARN that the caller's policies must allow."""
    try:
        return await _manager(one).resource(request["secretId"])
    except secrets.MissingError as error:
        raise _missing(error) from error


async def get(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Answers from the device's store; `refresh` asks the cloud first."""
    try:
        version, value = await _manager(one).get(
            request["secretId"],
            request.get("versionId", ""),
            request.get("versionStage", ""),
            refresh=request.get("refresh", False),
        )
    except secrets.MissingError as error:
        raise _missing(error) from error
    except errors.NucleusError as error:
        raise rpc.OperationError("ServiceError", error.detail) from error
    if version.is_binary:
        told = {"secretBinary": binascii.b2a_base64(value, newline=False).decode()}
    else:
        told = {"secretString": value.decode()}
    return {"secretId": version.arn, "versionId": version.id, "versionStage": list(version.stages), "secretValue": told}


def _manager(one: call.Call) -> ports.Secrets:
    found = one.ports.secrets
    if found is None:
        what = (
            "cannot get secrets: aws.greengrass.SecretManager needs a device with an identity; set up `system`, and"
            " iotDataEndpoint, iotCredEndpoint and iotRoleAlias of aws.greengrass.Nucleus"
        )
        raise rpc.OperationError("ServiceError", what)
    return found


def _missing(error: errors.NucleusError) -> rpc.OperationError:
    return rpc.OperationError("ResourceNotFoundError", error.detail)
