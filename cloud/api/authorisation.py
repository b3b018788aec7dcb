"""Whether the IoT policies of a device's certificate allow what it asks over mutual TLS."""

from __future__ import annotations

import functools

import msgspec

from cloud.api import calls, errors
from cloud.core import access
from cloud.store import principals


def require(call: calls.Call, action: str, resource: str, thing: str = "") -> None:
    """Raises ApiError 403 unless the policies allow it; `thing` is whom the device says it is, if it says so."""
    device = call.device
    assert device is not None  # the route says so
    variables = {access.IS_ATTACHED: "true" if device.things else "false"}
    if thing or len(device.things) == 1:
        variables[access.THING_NAME] = thing or device.things[0]
    policy = _compiled(principals.documents(call.tx, device.policies))
    if not access.allows(policy, action, resource, variables):
        who = ", ".join(device.things) or f"certificate {device.certificate_id}"
        raise errors.denied(f"{who} may not do {action} on {resource}: attach an IoT policy that allows it")


@functools.lru_cache(maxsize=256)
def _compiled(documents: tuple[str, ...]) -> access.Policy:
    """Devices share few policies: each set of documents is read once."""
    return access.compile([msgspec.json.decode(text) for text in documents])
