"""IoT policies: documents that say what a certificate may do, and what they are attached to."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping

from cloud.api import calls, certificates, errors
from cloud.core import access
from cloud.store import identities, principals
from cloud.store import tags as tag_store

_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_LIMIT_CHARACTERS = 2048  # AWS IoT's quota, without white space


class Tag(Struct, frozen=True, rename="pascal"):
    key: str
    value: str = ""


class PolicyBody(Struct, frozen=True, rename="camel"):
    """The body of CreatePolicy; the document is JSON in a string."""

    policy_document: str
    tags: tuple[Tag, ...] = ()


class TargetBody(Struct, frozen=True):
    """The body of AttachPolicy and DetachPolicy: the ARN of a certificate or a thing group."""

    target: str


def create(call: calls.Call) -> dict[str, Any]:
    """CreatePolicy. Raises MalformedPolicyException for a document that could not be enforced."""
    name, body = call.path["policyName"], call.read(PolicyBody)
    if not _NAME.fullmatch(name):
        raise errors.invalid_request(
            f"cannot create policy {name!r}: a name has 1 to 128 letters, digits and + = , . @ - _"
        )
    _check(name, body.policy_document)
    if principals.policy(call.tx, name) is not None:
        raise errors.already_exists(f"cannot create policy {name}: it exists already", name, _arn(call, name))
    principals.add_policy(call.tx, name, body.policy_document, call.now_ms)
    tag_store.write(call.tx, _arn(call, name), {tag.key: tag.value for tag in body.tags})
    return {**_summary(call, name), "policyDocument": body.policy_document, "policyVersionId": "1"}


def get(call: calls.Call) -> dict[str, Any]:
    """GetPolicy."""
    row = _of_path(call)
    created = calls.seconds(row["created_ms"])
    times = {"creationDate": created, "lastModifiedDate": created}
    document = {"policyDocument": row["document"], "defaultVersionId": str(row["version_id"])}
    return _summary(call, row["name"]) | document | times


def listed(call: calls.Call) -> dict[str, Any]:
    """ListPolicies."""
    limit, ascending = call.size("pageSize"), call.first("isAscendingOrder", "true").lower() == "true"
    rows = principals.policies(call.tx, call.after("marker"), limit + 1, ascending=ascending)
    kept, more = calls.page(rows, limit, lambda row: str(row["name"]), "nextMarker")
    return {"policies": [_summary(call, row["name"]) for row in kept], **more}


def delete(call: calls.Call) -> None:
    """DeletePolicy: of one that is attached to nothing."""
    name = _of_path(call)["name"]
    if principals.targets(call.tx, name):
        raise errors.ApiError(
            409, "DeleteConflictException", f"cannot delete policy {name}: it is attached; detach it first"
        )
    principals.delete_policy(call.tx, name)
    tag_store.clear(call.tx, _arn(call, name))


def attach(call: calls.Call) -> None:
    """AttachPolicy."""
    principals.attach_policy(call.tx, _of_path(call)["name"], _target(call, call.read(TargetBody).target))


def detach(call: calls.Call) -> None:
    """DetachPolicy."""
    principals.detach_policy(call.tx, _of_path(call)["name"], call.read(TargetBody).target)


def attached(call: calls.Call) -> dict[str, Any]:
    """ListAttachedPolicies."""
    names = principals.policies_on(call.tx, _target(call, call.path["target"]))
    return {"policies": [_summary(call, name) for name in names]}


def targets(call: calls.Call) -> dict[str, Any]:
    """ListTargetsForPolicy."""
    return {"targets": principals.targets(call.tx, _of_path(call)["name"])}


def _check(name: str, text: str) -> None:
    try:
        document = msgspec.json.decode(text, type=dict[str, Any])
        access.compile([document])
    except (msgspec.MsgspecError, ValueError) as error:
        raise errors.ApiError(400, "MalformedPolicyException", f"cannot create policy {name}: {error}") from None
    if len("".join(text.split())) > _LIMIT_CHARACTERS:
        message = f"cannot create policy {name}: the document has over {_LIMIT_CHARACTERS} characters"
        raise errors.ApiError(400, "MalformedPolicyException", message)


def _target(call: calls.Call, arn: str) -> str:
    """An ARN of ours of something that exists and can hold policies."""
    group = arn.removeprefix(call.services.arn("iot", "thinggroup/"))
    if group == arn:
        certificates.of_arn(call, arn)
    elif identities.group(call.tx, group) is None:
        raise errors.not_found(f"cannot find thing group {group}", group, "thing group")
    return arn


def _of_path(call: calls.Call) -> RowMapping:
    name = call.path["policyName"]
    row = principals.policy(call.tx, name)
    if row is None:
        raise errors.not_found(f"cannot find policy {name}; create it first", name, "policy")
    return row


def _summary(call: calls.Call, name: str) -> dict[str, Any]:
    return {"policyName": name, "policyArn": _arn(call, name)}


def _arn(call: calls.Call, name: str) -> str:
    return call.services.arn("iot", f"policy/{name}")
