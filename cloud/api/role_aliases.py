"""Role aliases of operators, and the temporary credentials that a device's certificate gets through one.

There are no roles here: an alias says how long credentials live and which role's name they bear; what every such
credential may do is `cloud/api/session_permissions.py`.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from msgspec import Struct
from sqlalchemy import RowMapping

from cloud.api import authorisation, calls, errors
from cloud.store import role_aliases
from cloud.store import tags as tag_store

_NAME = re.compile(r"[\w=,@-]{1,128}", re.ASCII)
_ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_SHORTEST_S, _USUAL_S, _LONGEST_S = 900, 3600, 43_200


class Tag(Struct, frozen=True, rename="pascal"):
    key: str
    value: str = ""


class RoleAliasBody(Struct, frozen=True, rename="camel"):
    """The body of CreateRoleAlias and UpdateRoleAlias."""

    role_arn: str | None = None
    credential_duration_seconds: int | None = None
    tags: tuple[Tag, ...] = ()


def create(call: calls.Call) -> dict[str, Any]:
    """CreateRoleAlias."""
    name, body = call.path["roleAlias"], call.read(RoleAliasBody)
    if not _NAME.fullmatch(name):
        raise errors.invalid_request(f"cannot create role alias {name!r}: 1 to 128 letters, digits and = , @ - _")
    if role_aliases.find(call.tx, name) is not None:
        raise errors.already_exists(f"cannot create role alias {name}: it exists already", name, _arn(call, name))
    role = _role(name, body.role_arn or "")
    role_aliases.add(call.tx, name, role, _duration(name, body.credential_duration_seconds, _USUAL_S), call.now_ms)
    tag_store.write(call.tx, _arn(call, name), {tag.key: tag.value for tag in body.tags})
    return {"roleAlias": name, "roleAliasArn": _arn(call, name)}


def update(call: calls.Call) -> dict[str, Any]:
    """UpdateRoleAlias: what is not given stays."""
    row, body = _of_path(call), call.read(RoleAliasBody)
    name = row["alias"]
    role = row["role_arn"] if body.role_arn is None else _role(name, body.role_arn)
    duration_s = _duration(name, body.credential_duration_seconds, row["duration_s"])
    role_aliases.update(call.tx, name, role, duration_s, call.now_ms)
    return {"roleAlias": name, "roleAliasArn": _arn(call, name)}


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeRoleAlias."""
    row = _of_path(call)
    return {
        "roleAliasDescription": {
            "roleAlias": row["alias"],
            "roleAliasArn": _arn(call, row["alias"]),
            "roleArn": row["role_arn"],
            "owner": call.services.account,
            "credentialDurationSeconds": row["duration_s"],
            "creationDate": calls.seconds(row["created_ms"]),
            "lastModifiedDate": calls.seconds(row["modified_ms"]),
        }
    }


def listed(call: calls.Call) -> dict[str, Any]:
    """ListRoleAliases."""
    limit, ascending = call.size("pageSize"), call.flag("isAscendingOrder")
    rows = role_aliases.listed(call.tx, call.after("marker"), limit + 1, ascending=ascending)
    kept, more = calls.page(rows, limit, lambda row: str(row["alias"]), "nextMarker")
    return {"roleAliases": [row["alias"] for row in kept], **more}


def delete(call: calls.Call) -> None:
    """DeleteRoleAlias."""
    name = _of_path(call)["alias"]
    role_aliases.delete(call.tx, name)
    tag_store.clear(call.tx, _arn(call, name))


def credentials(call: calls.Call) -> dict[str, Any]:
    """GET /role-aliases/<alias>/credentials of a device: exactly the four fields that its clients read."""
    device, row = call.device, _of_path(call)
    assert device is not None  # the route says so
    thing, name = call.headers.get("x-amzn-iot-thingname", ""), row["alias"]
    if thing not in device.things:
        why = f"this certificate does not speak for thing {thing!r} (header x-amzn-iot-thingname)"
        raise errors.denied(f"cannot give credentials of role alias {name}: {why}")
    authorisation.require(call, "iot:AssumeRoleWithCertificate", f"rolealias/{name}", thing)
    key = role_aliases.issue(call.tx, row, thing, device.certificate_id, call.now_ms)
    expires = datetime.datetime.fromtimestamp(key.expires_ms // 1000, datetime.UTC)
    return {
        "credentials": {
            "accessKeyId": key.id,
            "secretAccessKey": key.secret,
            "sessionToken": key.token,
            "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    }


def _role(name: str, arn: str) -> str:
    if not _ROLE.fullmatch(arn):
        raise errors.invalid_request(
            f"cannot set role alias {name}: {arn!r} is no ARN of a role (arn:aws:iam::…:role/…)"
        )
    return arn


def _duration(name: str, given_s: int | None, usual_s: int) -> int:
    if given_s is not None and not _SHORTEST_S <= given_s <= _LONGEST_S:
        why = f"credentialDurationSeconds must be {_SHORTEST_S} to {_LONGEST_S}"
        raise errors.invalid_request(f"cannot set role alias {name}: {why}")
    return usual_s if given_s is None else given_s


def _of_path(call: calls.Call) -> RowMapping:
    name = call.path["roleAlias"]
    row = role_aliases.find(call.tx, name)
    if row is None:
        raise errors.not_found(f"cannot find role alias {name}; create it first", name, "role alias")
    return row


def _arn(call: calls.Call, name: str) -> str:
    return call.services.arn("iot", f"rolealias/{name}")
