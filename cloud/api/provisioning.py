"""Provisioning templates of operators, and claims: what a factory or an installer puts on a device to begin with."""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Struct
from sqlalchemy import RowMapping

from cloud.api import calls, errors
from cloud.core import provisioning_template
from cloud.store import principals, provisioning
from cloud.store import tags as tag_store

_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}")
_LIMIT_BODY = 10_240
_CLAIM_S = 300  # how long AWS's temporary claims live


class Tag(Struct, frozen=True, rename="pascal"):
    key: str
    value: str = ""


class TemplateBody(Struct, frozen=True, rename="camel"):
    """The body of CreateProvisioningTemplate; `preProvisioningHook` (a Lambda function) is not supported here."""

    template_name: str
    template_body: str
    provisioning_role_arn: str
    description: str = ""
    enabled: bool = False
    type: str = "FLEET_PROVISIONING"
    pre_provisioning_hook: dict[str, Any] | None = None
    tags: tuple[Tag, ...] = ()


class UpdateBody(Struct, frozen=True, rename="camel"):
    """The body of UpdateProvisioningTemplate, as far as it changes anything here."""

    description: str | None = None
    enabled: bool | None = None
    provisioning_role_arn: str | None = None


def create(call: calls.Call) -> dict[str, Any]:
    """CreateProvisioningTemplate."""
    body = call.read(TemplateBody)
    name = body.template_name
    if not _NAME.fullmatch(name):
        raise errors.invalid_request(f"cannot create provisioning template {name!r}: 1 to 36 letters, digits, _ and -")
    if provisioning.find(call.tx, name) is not None:
        raise errors.already_exists(
            f"cannot create provisioning template {name}: it exists already", name, _arn(call, name)
        )
    _check(body)
    provisioning.add(
        call.tx,
        name,
        call.now_ms,
        description=body.description,
        body=body.template_body,
        role_arn=body.provisioning_role_arn,
        enabled=body.enabled,
    )
    tag_store.write(call.tx, _arn(call, name), {tag.key: tag.value for tag in body.tags})
    return {"templateArn": _arn(call, name), "templateName": name, "defaultVersionId": 1}


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeProvisioningTemplate."""
    row = _of_path(call)
    more = {"templateBody": row["body"], "provisioningRoleArn": row["role_arn"], "defaultVersionId": 1}
    return _summary(call, row) | more


def listed(call: calls.Call) -> dict[str, Any]:
    """ListProvisioningTemplates."""
    limit = call.size()
    rows = provisioning.listed(call.tx, call.after(), limit + 1)
    kept, more = calls.page(rows, limit, lambda row: str(row["name"]))
    return {"templates": [_summary(call, row) for row in kept], **more}


def update(call: calls.Call) -> dict[str, Any]:
    """UpdateProvisioningTemplate: on, off, or another description. Its body stays: make another template."""
    row, body = _of_path(call), call.read(UpdateBody)
    given = {"description": body.description, "enabled": body.enabled, "role_arn": body.provisioning_role_arn}
    changes = {name: value for name, value in given.items() if value is not None}
    provisioning.update(call.tx, row["name"], call.now_ms, **changes)
    return {}


def delete(call: calls.Call) -> dict[str, Any]:
    """DeleteProvisioningTemplate: devices that came through it stay."""
    name = _of_path(call)["name"]
    provisioning.delete(call.tx, name)
    tag_store.clear(call.tx, _arn(call, name))
    return {}


def claim(call: calls.Call) -> dict[str, Any]:
    """CreateProvisioningClaim: a certificate for five minutes that may do nothing but provision with this template."""
    name = _of_path(call)["name"]
    made = call.services.pki.issue_device(lifetime_s=_CLAIM_S)
    policy = f"provisioning-claim-{name}"
    if principals.policy(call.tx, policy) is None:
        principals.add_policy(call.tx, policy, json.dumps(_claim_policy(call, name)), call.now_ms)
    _forget_old_claims(call, policy)
    principals.add_certificate(call.tx, made, principals.ACTIVE, call.now_ms)
    principals.attach_policy(call.tx, policy, call.services.arn("iot", f"cert/{made.id}"))
    return {
        "certificateId": made.id,
        "certificatePem": made.pem,
        "keyPair": {"PublicKey": made.public_key, "PrivateKey": made.private_key},
        "expiration": calls.seconds(made.not_after_ms),
    }


def _forget_old_claims(call: calls.Call, policy: str) -> None:
    """Claims that have expired would stay in the broker's snapshot for ever."""
    for target in principals.targets(call.tx, policy):
        row = principals.certificate(call.tx, target.rpartition("/")[2])
        if row is None or row["not_after_ms"] >= call.now_ms or principals.things_of(call.tx, row["id"]):
            continue
        principals.detach_policy(call.tx, policy, target)
        principals.delete_certificate(call.tx, row["id"])


def _claim_policy(call: calls.Call, name: str) -> dict[str, Any]:
    topics = ("$aws/certificates/create/*", "$aws/certificates/create-from-csr/*")
    tails = (*topics, f"$aws/provisioning-templates/{name}/provision/*")
    arns = {kind: [call.services.arn("iot", f"{kind}/{tail}") for tail in tails] for kind in ("topic", "topicfilter")}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": arns["topic"]},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arns["topicfilter"]},
        ],
    }


def _check(body: TemplateBody) -> None:
    why = ""
    if body.pre_provisioning_hook is not None or body.type != "FLEET_PROVISIONING":
        why = "hooks and other types than FLEET_PROVISIONING are not supported here"
    elif len(body.template_body) > _LIMIT_BODY:
        why = f"its body has over {_LIMIT_BODY} characters"
    else:
        try:
            provisioning_template.read(body.template_body)
        except ValueError as error:
            why = str(error)
    if why:
        raise errors.invalid_request(f"cannot create provisioning template {body.template_name}: {why}")


def _of_path(call: calls.Call) -> RowMapping:
    name = call.path["templateName"]
    row = provisioning.find(call.tx, name)
    if row is None:
        raise errors.not_found(f"cannot find provisioning template {name}; create it first", name, "template")
    return row


def _summary(call: calls.Call, row: RowMapping) -> dict[str, Any]:
    return {
        "templateArn": _arn(call, row["name"]),
        "templateName": row["name"],
        "description": row["description"],
        "creationDate": calls.seconds(row["created_ms"]),
        "lastModifiedDate": calls.seconds(row["modified_ms"]),
        "enabled": row["enabled"],
        "type": "FLEET_PROVISIONING",
    }


def _arn(call: calls.Call, name: str) -> str:
    return call.services.arn("iot", f"provisioningtemplate/{name}")
