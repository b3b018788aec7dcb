"""Tags of Greengrass resources: ListTagsForResource, TagResource, UntagResource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from cloud.api import calls, errors
from cloud.store import components, deployments, fleet, tags
from cloud.store import identities as identity_store

LIMIT = 200  # tags of one resource (botocore's model)
Key = Annotated[str, Meta(min_length=1, max_length=128)]
Value = Annotated[str, Meta(max_length=256)]


class TagBody(Struct, frozen=True):
    tags: dict[Key, Value]


def listed(call: calls.Call) -> dict[str, Any]:
    return {"tags": tags.read(call.tx, _resource(call))}


def add(call: calls.Call) -> dict[str, Any]:
    arn, new = _resource(call), call.read(TagBody).tags
    attach(call, arn, new)
    return {}


def remove(call: calls.Call) -> dict[str, Any]:
    tags.remove(call.tx, _resource(call), call.query.get("tagKeys", ()))
    return {}


def attach(call: calls.Call, arn: str, new: Mapping[str, str]) -> None:
    """Adds tags to a resource. Raises ValidationException if it would have too many."""
    if len(tags.read(call.tx, arn) | dict(new)) > LIMIT:
        raise errors.validation(f"cannot tag {arn}: more than {LIMIT} tags", [("tags", f"at most {LIMIT}")])
    tags.write(call.tx, arn, new)


def _resource(call: calls.Call) -> str:
    """The ARN of the path, of something that exists."""
    arn = call.path["resourceArn"]
    if not _exists(call, arn):
        raise errors.not_found(f"cannot find resource {arn}", arn, "resource")
    return arn


def _exists(call: calls.Call, arn: str) -> bool:
    tail = arn.split(":")[5:]
    match tail:
        case ["components", name]:
            return bool(components.versions(call.tx, name))
        case ["components", name, "versions", version]:
            return components.get(call.tx, name, version) is not None
        case ["deployments", deployment_id]:
            return deployments.get(call.tx, deployment_id) is not None
        case ["coreDevices", thing]:
            return fleet.core_device(call.tx, thing) is not None
        case _:
            kind, _, name = ":".join(tail).partition("/")
            return kind == "thinggroup" and identity_store.group(call.tx, name) is not None
