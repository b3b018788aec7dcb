"""What a device's temporary key may do on the operators' API: read, of devices only itself, and bring objects of its own.

There is no IAM here, so this is one fixed set for all role aliases. A temporary key is never an operator's key: what is
not listed is refused, whatever the signature says.
"""

from __future__ import annotations

from collections.abc import Mapping

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
_OBJECTS: frozenset[calls.Operation] = frozenset({s3.get, s3.head})
_OF_ITSELF: frozenset[calls.Operation] = frozenset(
    {core_devices.get, core_devices.effective_deployments, core_devices.installed_components}
)


def require(session: role_aliases.Session, operation: calls.Operation, path: Mapping[str, str]) -> None:
    """Raises ApiError 403; `path` are the parts of the call's path: `thing` is a core device, `key` an object's.

    Objects below `things/<thing>/` of any bucket are the device's own, as with the policy variable
    `${credentials-iot:ThingName}` in AWS: captures and logs go there. What others brought there is not for it to read.
    """
    key = path.get("key", "")
    own = key.startswith(f"things/{session.thing}/")
    if operation in _OBJECTS and key.startswith("things/") and not own:
        raise errors.denied(f"{session.thing} may not do this: {key[:100]} is of another device")
    if operation in _READS or (operation in _OF_ITSELF and path.get("thing", "") == session.thing):
        return
    if operation is s3.put and own:
        return
    why = (
        "temporary credentials of devices may only read objects, components and the device's own state, "
        f"and put objects below things/{session.thing}/"
    )
    raise errors.denied(f"{session.thing} may not do this: {why}")
