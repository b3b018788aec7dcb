"""ValidateAuthorizationToken: the stream manager asks whether a token of its own clients is one of this device's."""

from __future__ import annotations

from typing import Any

from nucleus.ipc import call
from nucleus.wire import rpc

STREAM_MANAGER = "aws.greengrass.StreamManager"


def validate(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Raises InvalidTokenError for an unknown token: the answer is never `isValid: false` (spec/ipc.md 3).

    No policy grants it; the caller is the component of that name, as long as it is on this device.
    """
    if one.caller != STREAM_MANAGER or one.ports.components.component(one.caller) is None:
        raise rpc.OperationError(
            "UnauthorizedError",
            f"Principal {one.caller} is not authorized to perform {rpc.NAMESPACE}{one.operation}: "
            f"only {STREAM_MANAGER} is",
        )
    if one.ports.identify(request["token"]) is None:
        raise rpc.OperationError("InvalidTokenError", "cannot validate the token: no component of this device has it")
    return {"isValid": True}
