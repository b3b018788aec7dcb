"""Thing groups: the targets of deployments, and who is in them."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from sqlalchemy import RowMapping

from cloud.api import calls, errors, things
from cloud.store import identities, jobs
from cloud.store import tags as tag_store

# No colon: it would break the configuration ARN of the group's deployments (spec/cloud.md 1.4).
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class Properties(Struct, frozen=True, rename="camel"):
    thing_group_description: str | None = None
    attribute_payload: things.AttributePayload = things.AttributePayload()


class Tag(Struct, frozen=True, rename="pascal"):
    key: str
    value: str = ""


class GroupBody(Struct, frozen=True, rename="camel"):
    """The body of CreateThingGroup."""

    parent_group_name: str | None = None
    thing_group_properties: Properties = Properties()
    tags: tuple[Tag, ...] = ()


class Membership(Struct, frozen=True, rename="camel"):
    """The body of AddThingToThingGroup and RemoveThingFromThingGroup: each by name or by ARN."""

    thing_group_name: str = ""
    thing_group_arn: str = ""
    thing_name: str = ""
    thing_arn: str = ""


def create(call: calls.Call) -> dict[str, Any]:
    """CreateThingGroup; the same again answers the same."""
    name, body = call.path["thingGroupName"], call.read(GroupBody)
    if not _NAME.fullmatch(name):
        raise errors.invalid_request(
            f"cannot create thing group {name!r}: a name has 1 to 128 letters, digits, _ and -"
        )
    if body.parent_group_name is not None:
        _existing(call, body.parent_group_name)
    properties = body.thing_group_properties
    wanted = (body.parent_group_name, properties.thing_group_description, properties.attribute_payload.attributes)
    row = identities.group(call.tx, name)
    if row is not None and (row["parent"], row["description"], identities.attributes(row)) != wanted:
        message = f"cannot create thing group {name}: it exists with other properties"
        raise errors.already_exists(message, row["id"], _arn(call, name))
    group_id = row["id"] if row else identities.create_group(call.tx, name, *wanted, now_ms=call.now_ms)
    tag_store.write(call.tx, _arn(call, name), {tag.key: tag.value for tag in body.tags})
    return {"thingGroupName": name, "thingGroupArn": _arn(call, name), "thingGroupId": group_id}


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeThingGroup."""
    row = _of_path(call)
    metadata: dict[str, Any] = {"creationDate": calls.seconds(row["created_ms"])}
    if row["parent"]:
        ancestors = identities.lineage(call.tx, row["name"])
        metadata["parentGroupName"] = row["parent"]
        metadata["rootToParentThingGroups"] = [_reference(call, name) for name in ancestors]
    properties: dict[str, Any] = {"attributePayload": {"attributes": identities.attributes(row)}}
    if row["description"]:
        properties["thingGroupDescription"] = row["description"]
    return {
        "thingGroupName": row["name"],
        "thingGroupId": row["id"],
        "thingGroupArn": _arn(call, row["name"]),
        "version": row["version"],
        "thingGroupProperties": properties,
        "thingGroupMetadata": metadata,
    }


def listed(call: calls.Call) -> dict[str, Any]:
    """ListThingGroups, all or by prefix or the children of a parent."""
    limit, parent = call.size(), call.first("parentGroup") or None
    if parent is not None:
        _existing(call, parent)
    rows = identities.groups(call.tx, call.after(), limit + 1, prefix=call.first("namePrefixFilter"), parent=parent)
    kept, more = calls.page(rows, limit, lambda row: str(row["name"]))
    return {"thingGroups": [_reference(call, row["name"]) for row in kept], **more}


def delete(call: calls.Call) -> dict[str, Any]:
    """DeleteThingGroup: its members stay things; what they had not begun of its deployments is removed."""
    name = call.path["thingGroupName"]
    if identities.group(call.tx, name) is None:
        return {}
    if identities.groups(call.tx, "", 1, parent=name):
        raise errors.invalid_request(f"cannot delete thing group {name}: it has child groups; delete them first")
    for thing in identities.members(call.tx, name):
        identities.remove_member(call.tx, name, thing)
        jobs.thing_left(call.tx, name, thing, call.now_ms)
    identities.delete_group(call.tx, name)
    tag_store.clear(call.tx, _arn(call, name))
    return {}


def add_thing(call: calls.Call) -> dict[str, Any]:
    """AddThingToThingGroup: the thing receives the group's newest deployment."""
    group, thing = _membership(call)
    if not identities.is_member(call.tx, group, thing):
        identities.add_member(call.tx, group, thing, call.now_ms)
        jobs.thing_joined(call.tx, group, thing, call.now_ms)
    return {}


def remove_thing(call: calls.Call) -> dict[str, Any]:
    """RemoveThingFromThingGroup."""
    group, thing = _membership(call)
    if identities.is_member(call.tx, group, thing):
        identities.remove_member(call.tx, group, thing)
        jobs.thing_left(call.tx, group, thing, call.now_ms)
    return {}


def members(call: calls.Call) -> dict[str, Any]:
    """ListThingsInThingGroup."""
    limit, name = call.size(), _of_path(call)["name"]
    rows = identities.members(call.tx, name, call.after(), limit + 1, recursive=call.flag("recursive"))
    kept, more = calls.page(rows, limit, str)
    return {"things": kept, **more}


def of_thing(call: calls.Call) -> dict[str, Any]:
    """ListThingGroupsForThing."""
    limit, thing = call.size(), things.of_path(call)["name"]
    rows = identities.groups_of(call.tx, thing, call.after(), limit + 1)
    kept, more = calls.page(rows, limit, lambda row: str(row["name"]))
    return {"thingGroups": [_reference(call, row["name"]) for row in kept], **more}


def of_core_device(call: calls.Call, thing: str) -> dict[str, Any]:
    """ListThingGroupsForCoreDevice of the data plane (spec/cloud.md 2.4): one page, minimal."""
    found = []
    for row in identities.groups_of(call.tx, thing):
        group = {"thingGroupName": row["name"], "thingGroupId": row["id"], "thingGroupArn": _arn(call, row["name"])}
        ancestors = identities.lineage(call.tx, row["name"])
        roots = [{"thingGroupName": name, "thingGroupArn": _arn(call, name)} for name in ancestors]
        found.append(group | {"rootToParentThingGroups": roots})
    return {"thingGroups": found}


def _membership(call: calls.Call) -> tuple[str, str]:
    body = call.read(Membership)
    group = body.thing_group_name or body.thing_group_arn.rpartition("thinggroup/")[2]
    thing = body.thing_name or body.thing_arn.rpartition("thing/")[2]
    return _existing(call, group)["name"], things.existing(call, thing)["name"]


def _of_path(call: calls.Call) -> RowMapping:
    return _existing(call, call.path["thingGroupName"])


def _existing(call: calls.Call, name: str) -> RowMapping:
    row = identities.group(call.tx, name)
    if row is None:
        raise errors.not_found(f"cannot find thing group {name}; create it first", name, "thing group")
    return row


def _reference(call: calls.Call, name: str) -> dict[str, str]:
    return {"groupName": name, "groupArn": _arn(call, name)}


def _arn(call: calls.Call, name: str) -> str:
    return call.services.arn("iot", f"thinggroup/{name}")
