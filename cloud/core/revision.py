"""A revision of a target's configuration: what CreateDeployment asks for, and the document that devices receive.

Sources: spec/cloud.md 1.3, 1.6 (request), 3.3 (document).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

SCHEMA_DATE = "2021-05-17"
SETTING = "marram:"  # tags of this prefix are settings of ours (design.md 4.6, row 22)
_MERGE_BYTES = 10_485_760


class ConfigurationUpdate(Struct, frozen=True, omit_defaults=True):
    """`merge` is JSON in a string; `reset` are JSON pointers."""

    merge: Annotated[str, Meta(max_length=_MERGE_BYTES)] | None = None
    reset: tuple[Annotated[str, Meta(max_length=256)], ...] | None = None


class Limits(Struct, frozen=True, omit_defaults=True):
    memory: Annotated[int, Meta(ge=0)] | None = None  # KB
    cpus: Annotated[float, Meta(ge=0)] | None = None


class RunWith(Struct, frozen=True, omit_defaults=True, rename="camel"):
    posix_user: str | None = None
    windows_user: str | None = None
    system_resource_limits: Limits | None = None


class Wish(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One component of the request."""

    component_version: Annotated[str, Meta(min_length=1, max_length=64)]
    configuration_update: ConfigurationUpdate | None = None
    run_with: RunWith | None = None


class UpdatePolicy(Struct, frozen=True, rename="camel"):
    timeout_in_seconds: Annotated[int, Meta(ge=1)] = 60
    action: Annotated[str, Meta(pattern="^(NOTIFY_COMPONENTS|SKIP_NOTIFY_COMPONENTS)$")] = "NOTIFY_COMPONENTS"


class ValidationPolicy(Struct, frozen=True, rename="camel"):
    timeout_in_seconds: Annotated[int, Meta(ge=1)] = 30


class Policies(Struct, frozen=True, rename="camel"):
    failure_handling_policy: Annotated[str, Meta(pattern="^(ROLLBACK|DO_NOTHING)$")] = "ROLLBACK"
    component_update_policy: UpdatePolicy = UpdatePolicy()
    configuration_validation_policy: ValidationPolicy = ValidationPolicy()


class Request(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of CreateDeployment."""

    target_arn: Annotated[str, Meta(min_length=1, max_length=512)]
    deployment_name: Annotated[str, Meta(min_length=1, max_length=256)] = ""
    components: dict[Annotated[str, Meta(min_length=1, max_length=128)], Wish] = {}
    iot_job_configuration: dict[str, Any] = {}
    deployment_policies: Policies = Policies()
    parent_target_arn: str = ""
    tags: dict[Annotated[str, Meta(min_length=1, max_length=128)], Annotated[str, Meta(max_length=256)]] = {}
    client_token: Annotated[str, Meta(pattern="^[a-zA-Z0-9-]{1,64}$")] = ""


class Target(Struct, frozen=True):
    """`kind` is `thing` or `thinggroup`; "" when the ARN is of neither."""

    kind: str
    name: str


def target(arn: str) -> Target:
    """What a target ARN names."""
    kind, _, name = arn.split(":", 5)[-1].partition("/")
    if arn.count(":") != 5 or not arn.startswith("arn:aws:iot:") or kind not in ("thing", "thinggroup") or not name:
        return Target("", "")
    return Target(kind, name)


def problems(request: Request) -> list[tuple[str, str]]:
    """What makes a request unusable that its shape does not show: (member, what is wrong) pairs."""
    found = []
    for name, wish in request.components.items():
        update = wish.configuration_update or ConfigurationUpdate()
        where = f"components.{name}.configurationUpdate"
        if update.merge is not None and (why := _merge_problem(update.merge)):
            found.append((f"{where}.merge", f"component {name}: {why}"))
        for pointer in update.reset or ():
            if pointer and not pointer.startswith("/"):
                text = f"component {name}: {pointer!r} is no JSON pointer, which is empty or begins with /"
                found.append((f"{where}.reset", text))
    return found


def document(
    request: Request, *, deployment_id: str, configuration_arn: str, created_ms: int, on_behalf_of: str = ""
) -> dict[str, Any]:
    """The document of spec 3.3, minimal: members that say nothing are left out. `problems` must have found none.

    `on_behalf_of` is the ARN of the group that a sub-deployment acts for: its parent's own one, if that is one itself.
    """
    policies = request.deployment_policies
    made: dict[str, Any] = {"deploymentId": deployment_id}
    if request.deployment_name:
        made["deploymentName"] = request.deployment_name
    made |= {"schemaDate": SCHEMA_DATE, "configurationArn": configuration_arn, "creationTimestamp": created_ms}
    if request.parent_target_arn:
        made |= {"parentTargetArn": request.parent_target_arn, "onBehalfOf": on_behalf_of or request.parent_target_arn}
    if needed := _capabilities(request):
        made["requiredCapabilities"] = needed
    update = policies.component_update_policy
    made |= {
        "failureHandlingPolicy": policies.failure_handling_policy,
        "componentUpdatePolicy": {"timeout": update.timeout_in_seconds, "action": update.action},
        "configurationValidationPolicy": {"timeout": policies.configuration_validation_policy.timeout_in_seconds},
        "components": {name: _component(wish) for name, wish in request.components.items()},
    }
    if settings := _settings(request.tags):
        made["marram"] = settings
    return made


def created_ms(now_ms: int, newest_ms: int | None) -> int:
    """A revision's creation time: now, but always after the target's newest revision (devices refuse older ones)."""
    return now_ms if newest_ms is None else max(now_ms, newest_ms + 1)


def _component(wish: Wish) -> dict[str, Any]:
    made: dict[str, Any] = {"version": wish.component_version}
    update = wish.configuration_update
    if update is not None:
        changes: dict[str, Any] = {}
        if update.merge is not None:
            changes["merge"] = msgspec.json.decode(update.merge)
        if update.reset:
            changes["reset"] = list(update.reset)
        made["configurationUpdate"] = changes
    if wish.run_with is not None:
        made["runWith"] = msgspec.to_builtins(wish.run_with)
    return made


def _capabilities(request: Request) -> list[str]:
    limited = any(wish.run_with and wish.run_with.system_resource_limits for wish in request.components.values())
    return ["LINUX_RESOURCE_LIMITS"] * limited + ["SUB_DEPLOYMENTS"] * bool(request.parent_target_arn)


def _settings(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(SETTING): value for key, value in tags.items() if key.startswith(SETTING)}


def _merge_problem(text: str) -> str:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"merge is not JSON: {error}"
    return "" if isinstance(value, dict) else "merge must be a JSON object"
