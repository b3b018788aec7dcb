"""ValidateAuthorizationToken: components that serve others ask whether a token of their clients is one of this device's.

The stream manager asks, as with the original. The model agent may ask here, too, and is told whose token it is: an
additional member of the answer that clients who do not know it skip.
"""

from __future__ import annotations

from typing import Any

from nucleus.ipc import call
from nucleus.wire import rpc

STREAM_MANAGER = "aws.greengrass.StreamManager"
MODEL_AGENT = "marram.ModelAgent"


def validate(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Raises InvalidTokenError for an unknown token: the answer is never `isValid: false` (spec/ipc.md 3).

    No policy grants it; the caller is the component of one of the two names, as long as it is on this device.
    """
    if one.caller not in (STREAM_MANAGER, MODEL_AGENT) or one.ports.components.component(one.caller) is None:
        raise rpc.OperationError(
            "UnauthorizedError",
            f"Principal {one.caller} is not authorized to perform {rpc.NAMESPACE}{one.operation}: "
            f"only {STREAM_MANAGER} and {MODEL_AGENT} are",
        )
    name = one.ports.identify(request["token"])
    if name is None:
        raise rpc.OperationError("InvalidTokenError", "cannot validate the token: no component of this device has it")
    return {"isValid": True} | ({"componentName": name} if one.caller == MODEL_AGENT else {})
