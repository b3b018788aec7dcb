"""Provisioning templates: what a device gets that comes with a claim certificate (AWS IoT, "Provisioning templates").

The subset: `Parameters` (strings, with defaults), `Resources` of the types AWS::IoT::Thing (ThingName, AttributePayload,
ThingGroups, ThingTypeName), AWS::IoT::Certificate (CertificateId, Status Active or Inactive) and AWS::IoT::Policy
(PolicyName, or PolicyDocument), the functions Ref, Fn::Join and Fn::Sub, and `DeviceConfiguration`. A thing that exists
keeps its attributes and its groups, whatever OverrideSettings say. Everything else is refused when the template is made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from cloud.core import access

CERTIFICATE_ID = "AWS::IoT::Certificate::Id"
_THING, _CERTIFICATE, _POLICY = "AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy"
_PROPERTIES = {
    _THING: {"ThingName", "AttributePayload", "ThingGroups", "ThingTypeName"},
    _CERTIFICATE: {"CertificateId", "Status", "ThingPrincipalType"},
    _POLICY: {"PolicyName", "PolicyDocument"},
}
_THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_SUBSTITUTE = re.compile(r"\$\{([A-Za-z0-9_:]+)\}")
_STATUS = {"ACTIVE": "ACTIVE", "INACTIVE": "INACTIVE"}


class Template(Struct, frozen=True):
    """A checked template; `parameters` maps a name to its default, None if it must be given."""

    parameters: dict[str, str | None]
    resources: dict[str, tuple[str, dict[str, Any]]]
    device_configuration: dict[str, Any]


class Provision(Struct, frozen=True):
    """What one device gets: `policies` are (name, document); a document is "" if the policy must exist already."""

    thing: str
    thing_type: str | None
    attributes: dict[str, str]
    groups: tuple[str, ...]
    status: str
    policies: tuple[tuple[str, str], ...]
    device_configuration: dict[str, str]


def read(text: str) -> Template:
    """Raises ValueError saying what is wrong, and where."""
    try:
        body = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"the template body is no JSON object: {error}") from None
    unknown = sorted(body.keys() - {"Parameters", "Resources", "DeviceConfiguration"})
    if unknown:
        raise ValueError(f"the template body has {', '.join(unknown)}, which is not supported here")
    resources = {name: _resource(name, one) for name, one in _object(body, "Resources").items()}
    for kind, least in ((_THING, 1), (_CERTIFICATE, 1)):
        if sum(one[0] == kind for one in resources.values()) != least:
            raise ValueError(f"the template needs exactly one resource of type {kind}")
    parameters = {name: _parameter(name, one) for name, one in _object(body, "Parameters").items()}
    template = Template(parameters, resources, _object(body, "DeviceConfiguration"))
    for name, (_, properties) in resources.items():
        _check(template, properties, f"Resources.{name}")
    _check(template, template.device_configuration, "DeviceConfiguration")
    return template


def fill(template: Template, given: Mapping[str, str], certificate_id: str) -> Provision:
    """What a device with these parameters gets. Raises ValueError naming the parameter or property at fault."""
    values = {name: given.get(name, default) for name, default in template.parameters.items()}
    values[CERTIFICATE_ID] = certificate_id
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        raise ValueError(f"these parameters are missing: {', '.join(missing)}")
    known = {name: value for name, value in values.items() if value is not None}
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for kind, properties in template.resources.values():
        by_kind.setdefault(kind, []).append(_filled(properties, known))
    thing, certificate = by_kind[_THING][0], by_kind[_CERTIFICATE][0]
    name = str(thing.get("ThingName") or "")
    if not _THING_NAME.fullmatch(name):
        raise ValueError(f"the thing's name {name!r} is not 1 to 128 of a-z A-Z 0-9 : _ -")
    return Provision(
        thing=name,
        thing_type=thing.get("ThingTypeName") or None,
        attributes={str(key): str(value) for key, value in (thing.get("AttributePayload") or {}).items()},
        groups=tuple(str(one) for one in thing.get("ThingGroups") or ()),
        status=_STATUS[str(certificate.get("Status") or "Active").upper()],
        policies=tuple(_policy(one) for one in by_kind.get(_POLICY, ())),
        device_configuration={key: str(one) for key, one in _filled(template.device_configuration, known).items()},
    )


def _resource(name: str, given: Any) -> tuple[str, dict[str, Any]]:
    kind = given.get("Type") if isinstance(given, dict) else None
    if kind not in _PROPERTIES:
        raise ValueError(f"Resources.{name}: Type {kind!r} is not one of {', '.join(_PROPERTIES)}")
    properties = given.get("Properties") or {}
    if not isinstance(properties, dict):
        raise ValueError(f"Resources.{name}: Properties is no object")
    unknown = sorted(properties.keys() - _PROPERTIES[kind])
    if unknown:
        raise ValueError(f"Resources.{name}: {', '.join(unknown)} of {kind} is not supported here")
    if kind == _POLICY and len(properties.keys() & {"PolicyName", "PolicyDocument"}) != 1:
        raise ValueError(f"Resources.{name}: either PolicyName or PolicyDocument is needed")
    status = properties.get("Status", "Active")
    if kind == _CERTIFICATE and str(status).upper() not in _STATUS:
        raise ValueError(f"Resources.{name}: Status {status!r} is neither Active nor Inactive")
    groups = properties.get("ThingGroups", [])
    if not isinstance(groups, list) or not isinstance(properties.get("AttributePayload", {}), dict):
        raise ValueError(f"Resources.{name}: ThingGroups must be a list, AttributePayload an object")
    return kind, properties


def _policy(properties: dict[str, Any]) -> tuple[str, str]:
    """A policy of a document gets its name from what it says: equal documents are one policy."""
    if "PolicyName" in properties:
        return str(properties["PolicyName"]), ""
    document = properties["PolicyDocument"]
    text = document if isinstance(document, str) else msgspec.json.encode(document).decode()
    try:
        access.compile([msgspec.json.decode(text, type=dict[str, Any])])
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"the template's PolicyDocument is not valid: {error}") from None
    return f"provisioned-{hashlib.sha256(text.encode()).hexdigest()[:32]}", text


def _parameter(name: str, given: Any) -> str | None:
    if not isinstance(given, dict) or given.get("Type") != "String":
        raise ValueError(f"Parameters.{name}: only Type String is supported")
    default = given.get("Default")
    if default is not None and not isinstance(default, str):
        raise ValueError(f"Parameters.{name}: Default is no string")
    return default


def _object(body: dict[str, Any], key: str) -> dict[str, Any]:
    found = body.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{key} is no object")
    return found


def _check(template: Template, value: Any, where: str) -> None:
    """Fills the value once with empty parameters: raises what is wrong whatever the parameters are."""
    try:
        _filled(value, dict.fromkeys((*template.parameters, CERTIFICATE_ID), ""))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """A value with its functions replaced."""
    if isinstance(value, list):
        return [_filled(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"Ref": str(name), **rest} if not rest:
            return _known(name, known)
        case {"Fn::Join": [str(between), list(parts)], **rest} if not rest:
            return between.join(str(_filled(one, known)) for one in parts)
        case {"Fn::Sub": str(text), **rest} if not rest:
            return _SUBSTITUTE.sub(lambda found: _known(found[1], known), text)
    strange = [name for name in value if name == "Ref" or name.startswith("Fn::")]
    if strange:
        raise ValueError(f"{strange[0]} is not supported in this form: Ref, Fn::Join and Fn::Sub are")
    return {name: _filled(one, known) for name, one in value.items()}


def _known(name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise ValueError(f"{name} is no parameter of the template")
    return known[name]
