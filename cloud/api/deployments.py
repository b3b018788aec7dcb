"""Deployments: a new revision of a target, and what became of it."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from cloud.api import calls, errors, tags
from cloud.core import revision
from cloud.store import components, deployments, identities, jobs, tokens
from cloud.store import tags as tag_store
from nucleus.core import builtin

_CREATE = "CreateDeployment"
# Part of a device's own software: configured by deployments, never handed out by the registry.
_BUILT_IN = builtin.NAMES | {"aws.greengrass.NucleusLite"}


def create(call: calls.Call) -> dict[str, Any]:
    """CreateDeployment: the next revision of the target, on its way in the same transaction."""
    request = call.read(revision.Request)
    if request.client_token and (given := tokens.answer(call.tx, _CREATE, request.client_token, call.now_ms)):
        return given
    target = _target(call, request.target_arn, "targetArn")
    on_behalf_of = _acted_for(call, request, target) if request.parent_target_arn else ""
    if found := revision.problems(request):
        raise errors.validation(f"cannot create the deployment: {found[0][1]}", found)
    _check_components(call, request)
    answer = _open(call, request, target, on_behalf_of)
    if request.client_token:
        tokens.remember(call.tx, _CREATE, request.client_token, answer, call.now_ms)
    return answer


def get(call: calls.Call) -> dict[str, Any]:
    """GetDeployment."""
    row = _row(call)
    details = {
        "components": msgspec.json.decode(row["components"]),
        "deploymentPolicies": msgspec.json.decode(row["policies"]),
        "iotJobConfiguration": msgspec.json.decode(row["job_configuration"]),
        "tags": tag_store.read(call.tx, _arn(call, row["id"])),
    }
    return _summary(row) | _job(call, row["job_id"]) | details


def listed(call: calls.Call) -> dict[str, Any]:
    """ListDeployments, newest first."""
    history = call.first("historyFilter", "LATEST_ONLY")
    if history not in ("ALL", "LATEST_ONLY"):
        message = f"cannot list deployments: historyFilter {history!r} is neither ALL nor LATEST_ONLY"
        raise errors.validation(message, [("historyFilter", "ALL or LATEST_ONLY")])
    limit, after = call.size(default=50), call.after()
    if after and not after.partition(" ")[0].isdigit():
        raise errors.validation("cannot go on: nextToken is not one of ListDeployments", [("nextToken", "unknown")])
    rows = deployments.listed(
        call.tx,
        target_arn=call.first("targetArn"),
        parent_arn=call.first("parentTargetArn"),
        latest_only=history == "LATEST_ONLY",
        after=after,
        limit=limit + 1,
    )
    rows, more = calls.page(rows, limit, deployments.key)
    return {"deployments": [_summary(row) for row in rows], **more}


def cancel(call: calls.Call) -> dict[str, Any]:
    """CancelDeployment: for the devices that did not begin it. Cancelling twice is harmless."""
    row = _row(call)
    if row["status"] not in (deployments.ACTIVE, "CANCELED"):
        message = f"cannot cancel deployment {row['id']}: it is {row['status']}, no longer ACTIVE"
        raise errors.conflict(message, row["id"], "deployment")
    jobs.cancel_deployment(call.tx, row["id"], call.now_ms)
    return {"message": "SUCCESS"}


def delete(call: calls.Call) -> None:
    """DeleteDeployment: of the record only; devices keep what they run."""
    row = _row(call)
    if row["status"] == deployments.ACTIVE:
        message = f"cannot delete deployment {row['id']}: it is ACTIVE; cancel it first"
        raise errors.conflict(message, row["id"], "deployment")
    deployments.delete(call.tx, row["id"])
    tag_store.clear(call.tx, _arn(call, row["id"]))


def _acted_for(call: calls.Call, request: revision.Request, target: revision.Target) -> str:
    """The ARN of the group that a sub-deployment acts for: the topmost parent (spec/nucleus.md 13.4, 53: nested ones too).

    A sub-deployment is from group to group, and a group has one parent for good (spec/cloud.md 1.6).
    """
    parent_arn = request.parent_target_arn
    parent = _target(call, parent_arn, "parentTargetArn")
    if (target.kind, parent.kind) != ("thinggroup", "thinggroup"):
        member = "targetArn" if parent.kind == "thinggroup" else "parentTargetArn"
        message = "cannot create the sub-deployment: target and parent must both be thing groups"
        raise errors.validation(message, [(member, "not a thing group")])
    known = deployments.parent(call.tx, request.target_arn)
    if known and known != parent_arn:
        message = f"cannot create the sub-deployment: the parent of {target.name} is {known}, and a group has one only"
        raise errors.validation(message, [("parentTargetArn", f"must be {known}")])
    above = [parent_arn]
    while (up := deployments.parent(call.tx, above[-1])) and up not in above:
        above.append(up)
    if request.target_arn in above:
        message = f"cannot create the sub-deployment: {target.name} would be its own parent"
        raise errors.validation(message, [("parentTargetArn", "leads back to the target")])
    return above[-1]


def _open(call: calls.Call, request: revision.Request, target: revision.Target, on_behalf_of: str) -> dict[str, Any]:
    deployment_id, newest = str(uuid.uuid4()), deployments.newest(call.tx, request.target_arn)
    number = newest["revision"] + 1 if newest else 1
    newest_ms = deployments.newest_ms(call.tx, {request.target_arn, on_behalf_of or request.target_arn})
    created_ms = revision.created_ms(call.now_ms, newest_ms)
    configuration = call.services.arn("greengrass", f"configuration:{target.kind}/{target.name}:{number}")
    document = revision.document(
        request,
        deployment_id=deployment_id,
        configuration_arn=configuration,
        created_ms=created_ms,
        on_behalf_of=on_behalf_of,
    )
    row = {
        "id": deployment_id,
        "target_arn": request.target_arn,
        "revision": number,
        "name": request.deployment_name,
        "job_id": str(uuid.uuid4()) if target.kind == "thinggroup" else "",
        "components": _text(request.components),
        "policies": _text(request.deployment_policies),
        "job_configuration": _text(request.iot_job_configuration),
        "parent_target_arn": request.parent_target_arn or None,
        "document": _text(document),
        "created_ms": created_ms,
    }
    deployments.add(call.tx, row)
    tags.attach(call, _arn(call, deployment_id), request.tags)
    jobs.open_deployment(call.tx, deployment_id, call.now_ms)
    return {"deploymentId": deployment_id} | _job(call, str(row["job_id"]))


def _check_components(call: calls.Call, request: revision.Request) -> None:
    """AWS accepts what cannot resolve and lets every device fail; we say it at once."""
    wanted = {name: wish.component_version for name, wish in request.components.items() if name not in _BUILT_IN}
    held = components.held(call.tx, wanted)
    missing = {name: number for name, number in wanted.items() if (name, number) not in held}
    if missing:
        text = "; ".join(_missing(call, name, number) for name, number in missing.items())
        first = next(iter(missing.items()))
        arn = call.services.arn("greengrass", f"components:{first[0]}:versions:{first[1]}")
        raise errors.not_found(f"cannot create the deployment: {text}", arn, "component")


def _missing(call: calls.Call, name: str, number: str) -> str:
    held = [row["version"] for row in components.versions(call.tx, name)[:5]]
    have = f"its newest versions are {', '.join(held)}" if held else "no version of it was published"
    return f"there is no component {name} version {number} ({have})"


def _target(call: calls.Call, arn: str, member: str) -> revision.Target:
    """The existing thing or thing group of an ARN of ours."""
    target = revision.target(arn)
    if not target.kind or arn != call.services.arn("iot", f"{target.kind}/{target.name}"):
        form = call.services.arn("iot", "thinggroup/NAME")
        message = f"cannot deploy to {arn!r}: a target here is {form} or …:thing/NAME"
        raise errors.validation(message, [(member, "not a thing or thing group of this account and region")])
    find = identities.thing if target.kind == "thing" else identities.group
    if find(call.tx, target.name) is None:
        word = "thing" if target.kind == "thing" else "thing group"
        raise errors.not_found(f"cannot deploy to {word} {target.name}: it does not exist; create it first", arn, word)
    return target


def _row(call: calls.Call) -> RowMapping:
    deployment_id = call.path["deploymentId"]
    row = deployments.get(call.tx, deployment_id)
    if row is None:
        raise errors.not_found(f"cannot find deployment {deployment_id}", deployment_id, "deployment")
    return row


def _summary(row: RowMapping) -> dict[str, Any]:
    made = {
        "targetArn": row["target_arn"],
        "revisionId": str(row["revision"]),
        "deploymentId": row["id"],
        "deploymentName": row["name"],
        "creationTimestamp": calls.seconds(row["created_ms"]),
        "deploymentStatus": row["status"],
        "isLatestForTarget": row["is_latest"],
        "parentTargetArn": row["parent_target_arn"],
    }
    return {name: value for name, value in made.items() if value not in (None, "")}


def _job(call: calls.Call, job_id: str) -> dict[str, str]:
    """A group's deployment is a job; a thing's is not."""
    return {"iotJobId": job_id, "iotJobArn": call.services.arn("iot", f"job/{job_id}")} if job_id else {}


def _arn(call: calls.Call, deployment_id: str) -> str:
    return call.services.arn("greengrass", f"deployments:{deployment_id}")


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
