"""What a device's temporary key may do on the operators' API: read, and of devices only itself.

There is no IAM here, so this is one fixed set for all role aliases. A temporary key is never an operator's key: what is
not listed is refused, whatever the signature says.
"""

from __future__ import annotations

from cloud.api import calls, components, core_devices, errors, s3, sts
from cloud.store import role_aliases

# Objects (artifacts, models, settings) and the components' recipes, as the original's documentation grants them.
_READS: frozenset[calls.Operation] = frozenset(
    {
        s3.location,
        s3.listed,
        s3.head_bucket,
        s3.get,
        s3.head,
        components.listed,
        components.get,
        components.describe,
        components.versions,
        components.artifact,
        sts.act,  # GetCallerIdentity: it only tells what the caller holds
    }
)
_OF_ITSELF: frozenset[calls.Operation] = frozenset(
    {core_devices.get, core_devices.effective_deployments, core_devices.installed_components}
)


def require(session: role_aliases.Session, operation: calls.Operation, thing: str) -> None:
    """Raises ApiError 403; `thing` is the core device named by the call's path, if any."""
    if operation in _READS or (operation in _OF_ITSELF and thing == session.thing):
        return
    why = "temporary credentials of devices may only read objects, components and the device's own state"
    raise errors.denied(f"{session.thing} may not do this: {why}")
