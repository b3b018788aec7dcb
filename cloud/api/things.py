"""Things of the registry and the certificates that speak for them."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from sqlalchemy import RowMapping

from cloud.api import calls, certificates, errors
from cloud.store import identities, jobs, principals

NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")


class AttributePayload(Struct, frozen=True):
    attributes: dict[str, str] = {}
    merge: bool = False


class ThingBody(Struct, frozen=True, rename="camel"):
    """The body of CreateThing and UpdateThing."""

    thing_type_name: str | None = None
    attribute_payload: AttributePayload | None = None
    remove_thing_type: bool = False
    expected_version: int | None = None


def create(call: calls.Call) -> dict[str, Any]:
    """CreateThing; the same again answers the same, other attributes are refused."""
    name, body = call.path["thingName"], call.read(ThingBody)
    if not NAME.fullmatch(name):
        raise errors.invalid_request(f"cannot create thing {name!r}: a name has 1 to 128 letters, digits and : _ -")
    attributes = (body.attribute_payload or AttributePayload()).attributes
    row = identities.thing(call.tx, name)
    if row is not None:
        if (row["type"], identities.attributes(row)) != (body.thing_type_name, attributes):
            message = f"cannot create thing {name}: it exists with other attributes or another type"
            raise errors.already_exists(message, row["id"], _arn(call, name))
        return {"thingName": name, "thingArn": _arn(call, name), "thingId": row["id"]}
    thing_id = identities.create_thing(call.tx, name, body.thing_type_name, attributes, call.now_ms)
    return {"thingName": name, "thingArn": _arn(call, name), "thingId": thing_id}


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeThing."""
    row = of_path(call)
    return {"defaultClientId": row["name"], "thingId": row["id"], **_summary(call, row)}


def update(call: calls.Call) -> dict[str, Any]:
    """UpdateThing."""
    row, body = of_path(call), call.read(ThingBody)
    _check_version(row, body.expected_version)
    attributes = identities.attributes(row)
    if body.attribute_payload is not None:
        given = body.attribute_payload
        attributes = attributes | given.attributes if given.merge else dict(given.attributes)
    attributes = {key: value for key, value in attributes.items() if value}
    kind = None if body.remove_thing_type else body.thing_type_name or row["type"]
    identities.update_thing(call.tx, row["name"], kind, attributes)
    return {}


def listed(call: calls.Call) -> dict[str, Any]:
    """ListThings, all or those of a type or with an attribute."""
    limit, wanted = call.size(), (call.first("attributeName"), call.first("attributeValue"))
    after, found = call.after(), list[RowMapping]()
    while len(found) <= limit:
        rows = identities.things(call.tx, after, limit + 1, call.first("thingTypeName") or None)
        found += [row for row in rows if _has(row, *wanted)]
        if len(rows) <= limit:
            break
        after = rows[-1]["name"]
    kept, more = calls.page(found, limit, lambda row: str(row["name"]))
    return {"things": [_summary(call, row) for row in kept], **more}


def delete(call: calls.Call) -> dict[str, Any]:
    """DeleteThing; detach its certificates first, as AWS demands."""
    name = call.path["thingName"]
    row = identities.thing(call.tx, name)
    if row is None:
        return {}
    _check_version(row, int(call.first("expectedVersion")) if call.first("expectedVersion").isdigit() else None)
    if principals.certificates_of(call.tx, name):
        raise errors.invalid_request(f"cannot delete thing {name}: certificates are attached; detach them first")
    for group in identities.groups_of(call.tx, name):
        identities.remove_member(call.tx, group["name"], name)
        jobs.thing_left(call.tx, group["name"], name, call.now_ms)
    identities.delete_thing(call.tx, name)
    return {}


def attach_principal(call: calls.Call) -> dict[str, Any]:
    """AttachThingPrincipal: from now on the certificate speaks for the thing."""
    principals.attach_thing(call.tx, of_path(call)["name"], _principal(call)["id"])
    return {}


def detach_principal(call: calls.Call) -> dict[str, Any]:
    """DetachThingPrincipal."""
    thing, certificate = of_path(call)["name"], _principal(call)["id"]
    if not principals.detach_thing(call.tx, thing, certificate):
        raise errors.invalid_request(f"cannot detach certificate {certificate} from thing {thing}: it is not attached")
    return {}


def principals_of(call: calls.Call) -> dict[str, Any]:
    """ListThingPrincipals."""
    found = principals.certificates_of(call.tx, of_path(call)["name"])
    kept, more = calls.slice_page(call, [call.services.arn("iot", f"cert/{one}") for one in found])
    return {"principals": kept, **more}


def of_principal(call: calls.Call) -> dict[str, Any]:
    """ListPrincipalThings."""
    kept, more = calls.slice_page(call, principals.things_of(call.tx, _principal(call)["id"]))
    return {"things": kept, **more}


def of_path(call: calls.Call) -> RowMapping:
    """The thing that the path names."""
    return existing(call, call.path["thingName"])


def existing(call: calls.Call, name: str) -> RowMapping:
    row = identities.thing(call.tx, name)
    if row is None:
        raise errors.not_found(f"cannot find thing {name}; create it first", name, "thing")
    return row


def _principal(call: calls.Call) -> RowMapping:
    """The certificate in the header `x-amzn-principal`."""
    return certificates.of_arn(call, call.headers.get("x-amzn-principal", ""))


def _check_version(row: RowMapping, expected: int | None) -> None:
    if expected is not None and expected != row["version"]:
        message = f"cannot change thing {row['name']}: it is at version {row['version']}, not {expected}"
        raise errors.ApiError(409, "VersionConflictException", message)


def _summary(call: calls.Call, row: RowMapping) -> dict[str, Any]:
    made = {"thingName": row["name"], "thingArn": _arn(call, row["name"]), "version": row["version"]}
    kind = {"thingTypeName": row["type"]} if row["type"] else {}
    return made | kind | {"attributes": identities.attributes(row)}


def _has(row: RowMapping, name: str, value: str) -> bool:
    return not name or identities.attributes(row).get(name) == value


def _arn(call: calls.Call, name: str) -> str:
    return call.services.arn("iot", f"thing/{name}")
