"""Which component may do what over IPC: the `accessControl` of component configurations.

Rules (spec/ipc.md 3.2): a policy belongs to the component whose configuration holds it; it allows an operation on a
resource if it lists the operation, or `*`, and has a matching resource. In a resource `*` is any run of characters; `+`
and a last `#` are wildcards only for `aws.greengrass.ipc.mqttproxy`. What cannot be understood is left out and told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import resources

CLI = "aws.greengrass.Cli"
PUBSUB = "aws.greengrass.ipc.pubsub"
SHADOW = "aws.greengrass.ShadowManager"
MQTT = "aws.greengrass.ipc.mqttproxy"

_PREFIX = "aws.greengrass#"
# Services that check access and their operations (spec/ipc.md 3, column "policy service").
SERVICES: Mapping[str, frozenset[str]] = {
    service: frozenset(name if name == "getCredentials" else _PREFIX + name for name in names.split())
    for service, names in {
        PUBSUB: "PublishToTopic SubscribeToTopic",
        MQTT: "PublishToIoTCore SubscribeToIoTCore SubscribeToIoTCoreConnectionStatus",
        "aws.greengrass.ipc.lifecycle": "PauseComponent ResumeComponent",
        "aws.greengrass.SecretManager": "GetSecretValue",
        SHADOW: "GetThingShadow UpdateThingShadow DeleteThingShadow ListNamedShadowsForThing",
        CLI: """GetComponentDetails ListComponents RestartComponent StopComponent CreateLocalDeployment
            GetLocalDeploymentStatus ListLocalDeployments CreateDebugPassword""",
        "aws.greengrass.ipc.componentmetric": "PutComponentMetric",
        "aws.greengrass.clientdevices.Auth": """SubscribeToCertificateUpdates VerifyClientDeviceIdentity
            GetClientDeviceAuthToken AuthorizeClientDeviceAction""",
        "aws.greengrass.TokenExchangeService": "getCredentials",
    }.items()
}
_KNOWN = {service: {operation.lower() for operation in operations} for service, operations in SERVICES.items()}


class Policy(Struct, frozen=True):
    """One policy of a component for one service: lower-cased operations and what may be done to."""

    id: str
    operations: frozenset[str]
    resources: tuple[resources.Pattern, ...]


class Policies(Struct, frozen=True):
    """All policies by (component, service); `problems` are sentences about what was left out."""

    by_owner: dict[tuple[str, str], tuple[Policy, ...]] = {}
    problems: tuple[str, ...] = ()


def read(policies: Mapping[str, Any]) -> Policies:
    """Reads {component: its accessControl}, as an object or as the JSON text of one."""
    by_owner: dict[tuple[str, str], tuple[Policy, ...]] = {}
    problems: list[str] = []
    for component, control in policies.items():
        for service, blocks in _members(_parsed(control), f"accessControl of {component}", problems):
            where = f"accessControl of {component} for {service}"
            if service not in SERVICES:
                problems.append(f"cannot use {where}: there is no such service")
                continue
            found = [_policy(where, service, *block, problems) for block in _members(blocks, where, problems)]
            by_owner[component, service] = tuple(policy for policy in found if policy is not None)
    return Policies(by_owner, tuple(problems))


def allows(policies: Policies, caller: str, service: str, operation: str, resource: str) -> bool:
    """Whether the caller may do the operation (`aws.greengrass#PublishToTopic`) on the resource; "" is no resource."""
    return _is_trusted(caller, service) or _granting(policies, caller, service, operation, resource) is not None


def explain(policies: Policies, caller: str, service: str, operation: str, resource: str) -> str:
    """One sentence: which policy allows it, or what the refused caller is told."""
    if _is_trusted(caller, service):
        return f"{caller} is always authorized to perform {service}:{operation}"
    policy = _granting(policies, caller, service, operation, resource)
    if policy is None:
        return f"Principal {caller} is not authorized to perform {service}:{operation} on resource {resource}"
    return f"Principal {caller} may perform {service}:{operation} on resource {resource} by policy {policy.id}"


def _is_trusted(caller: str, service: str) -> bool:
    if caller.startswith("greengrass-cli#"):  # the device's own user: its commands, and messages (spec/nucleus.md 8.1)
        return service in (CLI, PUBSUB, MQTT)
    if service == CLI:
        return caller == CLI
    return service == SHADOW == caller


def _granting(policies: Policies, caller: str, service: str, operation: str, resource: str) -> Policy | None:
    wanted = operation.lower()
    if wanted not in _KNOWN.get(service, ()):
        return None
    for policy in policies.by_owner.get((caller, service), ()):
        if (wanted in policy.operations or "*" in policy.operations) and _covers(policy, resource):
            return policy
    return None


def _covers(policy: Policy, resource: str) -> bool:
    """A policy without resources covers requests without one, and only them."""
    if not policy.resources:
        return not resource
    return any(resources.matches(pattern, resource) for pattern in policy.resources)


def _policy(where: str, service: str, name: str, block: Any, problems: list[str]) -> Policy | None:
    """One policy, or None if nothing of it can be used."""
    members = {key.lower(): value for key, value in block.items()} if isinstance(block, Mapping) else {}
    operations = _texts(members.get("operations"))
    if not operations:
        problems.append(f"cannot use policy {name} in {where}: it lists no operations")
        return None
    unknown = [each for each in operations if each != "*" and each.lower() not in _KNOWN[service]]
    problems += [f"policy {name} in {where} names the unknown operation {each}" for each in unknown]
    given, patterns = members.get("resources"), []
    if given is not None and not isinstance(given, list | tuple):
        problems.append(f"cannot use policy {name} in {where}: its resources must be a list")
        return None
    for each in given or ():
        try:
            patterns.append(resources.compile_pattern(each, mqtt=service == MQTT))
        except ValueError as error:
            problems.append(f"cannot use resource {each!r} of policy {name} in {where}: {error}")
    if given and not patterns:
        return None
    return Policy(name, frozenset(each.lower() for each in operations), tuple(patterns))


def _parsed(control: Any) -> Any:
    """An accessControl may be one text leaf that holds JSON."""
    if not isinstance(control, str):
        return control
    try:
        return json.loads(control)
    except (ValueError, RecursionError):
        return control


def _members(value: Any, where: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif value is not None:
        problems.append(f"cannot use {where}: it must be an object")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list | tuple) else ()
