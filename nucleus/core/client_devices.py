"""`aws.greengrass.clientdevices.Auth`: its configuration, and what a client device may do.

A device may do what a policy of a group that selects it allows and none of them denies. A configuration with a mistake
allows nothing to anybody: what was meant to be denied could hide in it.
Source: the documentation of the component; certificate validity: its bounds and default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import selection

FORMAT = "2021-03-05"
VARIABLE = "${iot:Connection.Thing.ThingName}"
SHORTEST_VALIDITY_S, USUAL_VALIDITY_S, LONGEST_VALIDITY_S = 172_800, 604_800, 864_000
USUAL_TRUST_MIN = 1
USUAL_OFFLINE_H = 168
USUAL_TOKENS, MOST_TOKENS = 2_500, 100_000
MOST_NAMES = 64
_HOST = re.compile(r"[\w.:*-]{1,253}", re.ASCII)

DEFAULTS: Mapping[str, Any] = {
    "deviceGroups": {"formatVersion": FORMAT, "definitions": {}, "policies": {}},
    "certificates": {"serverCertificateValiditySeconds": USUAL_VALIDITY_S},
    "security": {"clientDeviceTrustDurationMinutes": USUAL_TRUST_MIN},
    "performance": {"maxActiveAuthTokens": USUAL_TOKENS},
    "marram": {"offlineTrustHours": USUAL_OFFLINE_H, "serverNames": []},
}


class InvalidTokenError(Exception):
    """A client device's token is unknown, too old, or made way for newer ones."""


class InvalidCredentialError(Exception):
    """A client device is not who it says, or that cannot be found out now; the text says which."""


class Statement(Struct, frozen=True):
    """One statement; patterns are split at their `*`."""

    denies: bool
    operations: tuple[tuple[str, ...], ...]
    resources: tuple[tuple[str, ...], ...]


class Group(Struct, frozen=True):
    """Devices, and the statements of their policy."""

    selects: selection.Rule
    statements: tuple[Statement, ...]


class Settings(Struct, frozen=True):
    """The configuration as it is understood; `problems` are sentences for people."""

    groups: tuple[Group, ...] = ()
    validity_s: float = USUAL_VALIDITY_S
    trust_s: float = USUAL_TRUST_MIN * 60  # the cloud is not asked again
    offline_s: float = USUAL_OFFLINE_H * 3600  # what it said counts while it cannot be asked
    tokens: int = USUAL_TOKENS
    names: tuple[str, ...] = ()  # more names of this device, for server certificates
    problems: tuple[str, ...] = ()


def read(configuration: Mapping[str, Any]) -> Settings:
    """Reads the component's configuration; the names of its own members match whatever their case."""
    problems: list[str] = []
    members = _members(configuration, "the configuration", problems)
    given = members.get("devicegroups")
    groups = _groups(_members(given, "deviceGroups", problems), problems) if given is not None else ()
    ours = _members(members.get("marram"), "marram", problems)
    certificates = _members(members.get("certificates"), "certificates", problems)
    security = _members(members.get("security"), "security", problems)
    performance = _members(members.get("performance"), "performance", problems)
    names = _texts(ours.get("servernames") or [], "marram.serverNames", problems)
    if len(names) > MOST_NAMES or not all(_HOST.fullmatch(one) for one in names):
        problems.append(f"cannot use marram.serverNames: at most {MOST_NAMES} host names or addresses")
        names = ()
    return Settings(
        validity_s=_number(
            certificates,
            "serverCertificateValiditySeconds",
            USUAL_VALIDITY_S,
            SHORTEST_VALIDITY_S,
            LONGEST_VALIDITY_S,
            problems,
        ),
        trust_s=_number(security, "clientDeviceTrustDurationMinutes", USUAL_TRUST_MIN, 0, 10**6, problems) * 60,
        offline_s=_number(ours, "offlineTrustHours", USUAL_OFFLINE_H, 0, 10**5, problems) * 3600,
        tokens=int(_number(performance, "maxActiveAuthTokens", USUAL_TOKENS, 1, MOST_TOKENS, problems)),
        names=names,
        groups=groups,
        problems=tuple(problems),
    )


def allows(settings: Settings, thing: str, operation: str, resource: str) -> bool:
    """Whether a client device may do `operation` (`mqtt:publish`) on `resource` (`mqtt:topic:a/b`)."""
    if settings.problems:
        return False
    allowed = False
    for group in settings.groups:
        if not group.selects(thing):
            continue
        for one in group.statements:
            if not _fits_any(one.operations, operation, thing) or not _fits_any(one.resources, resource, thing):
                continue
            if one.denies:
                return False
            allowed = True
    return allowed


def _fits_any(patterns: tuple[tuple[str, ...], ...], text: str, thing: str) -> bool:
    return any(_fits(pattern, text, thing) for pattern in patterns)


def _fits(pattern: tuple[str, ...], text: str, thing: str) -> bool:
    """Whether the pieces between the `*` are in the text, in order, the first at its beginning, the last at its end."""
    first, *rest = (piece.replace(VARIABLE, thing) for piece in pattern)
    if not rest:
        return text == first
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _groups(members: Mapping[str, Any], problems: list[str]) -> tuple[Group, ...]:
    stated = members.get("formatversion", FORMAT)
    if stated != FORMAT:
        problems.append(f"cannot use deviceGroups: formatVersion must be {FORMAT!r}")
    policies = _mapping(members.get("policies"), "deviceGroups.policies", problems)
    statements = {str(name): _policy(one, f"policies.{name}", problems) for name, one in policies.items()}
    found = []
    for name, one in _mapping(members.get("definitions"), "deviceGroups.definitions", problems).items():
        where = f"definitions.{name}"
        group = _members(one, where, problems)
        rule, policy = group.get("selectionrule"), group.get("policyname")
        if not isinstance(rule, str) or not isinstance(policy, str) or policy not in statements:
            problems.append(f"cannot use {where}: it needs selectionRule and policyName, the name of one of policies")
            continue
        try:
            found.append(Group(selection.read(rule), statements[policy]))
        except selection.RuleError as error:
            problems.append(f"cannot use the selectionRule of {where}: {error}")
    return tuple(found)


def _policy(given: Any, where: str, problems: list[str]) -> tuple[Statement, ...]:
    found = []
    for name, one in _mapping(given, where, problems).items():
        members = _members(one, f"{where}.{name}", problems)
        effect = str(members.get("effect") or "ALLOW").upper()
        if effect not in ("ALLOW", "DENY"):
            problems.append(f"cannot use {where}.{name}: effect must be ALLOW or DENY")
        lists = [_texts(members.get(key), f"{where}.{name}.{key}", problems) for key in ("operations", "resources")]
        operations, resources = (tuple(tuple(text.split("*")) for text in texts) for texts in lists)
        found.append(Statement(effect == "DENY", operations, resources))
    return tuple(found)


def _members(given: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """With names in lower case."""
    return {str(name).lower(): value for name, value in _mapping(given, where, problems).items()}


def _mapping(given: Any, where: str, problems: list[str]) -> Mapping[Any, Any]:
    if given is None or isinstance(given, Mapping):
        return given or {}
    problems.append(f"cannot use {where}: it must be an object")
    return {}


def _texts(given: Any, where: str, problems: list[str]) -> tuple[str, ...]:
    if isinstance(given, list | tuple) and all(isinstance(one, str) for one in given):
        return tuple(given)
    problems.append(f"cannot use {where}: it must be a list of texts")
    return ()


def _number(
    members: Mapping[str, Any], name: str, usual: float, least: float, most: float, problems: list[str]
) -> float:
    """The member of this name (members are in lower case), `usual` if it is not given or of no use."""
    given = members.get(name.lower())
    if given is None:
        return usual
    try:
        found = float(given)
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if isinstance(given, bool) or not least <= found <= most:
        problems.append(f"cannot use {name}: it must be a number from {least:g} to {most:g}")
        return usual
    return found
