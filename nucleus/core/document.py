"""Deployment documents: what a target shall run, as the cloud or a local user says it.

Sources: spec/nucleus.md 5.1 (cloud), 5.2 (local), 4.4 (configuration updates); spec/cloud.md 3.3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NewType

from msgspec import Struct

from nucleus.core import component, errors
from nucleus.core import local as local_words

DeploymentId = NewType("DeploymentId", str)

ROLLBACK = "ROLLBACK"
DO_NOTHING = "DO_NOTHING"
LOCAL_GROUP = "LOCAL_DEPLOYMENT"
NOTIFY, SKIP = "NOTIFY_COMPONENTS", "SKIP_NOTIFY_COMPONENTS"
UPDATE_TIMEOUT_S = 60.0
VALIDATION_TIMEOUT_S, LOCAL_VALIDATION_TIMEOUT_S = 60.0, 20.0  # spec/nucleus.md 5.1, 5.2
REGRET_S = 600.0
DEADLINE_S = 1800.0  # ours: the original waits for ever (design.md decision 16); 0 = its endless wait
# Documents here come whole: one without its configuration (LARGE_CONFIGURATION) is refused, as a nucleus without it does.
CAPABILITIES = frozenset({"LINUX_RESOURCE_LIMITS", "SUB_DEPLOYMENTS"})
MAX_BYTES = 10 * 1024 * 1024  # DeploymentDocumentDownloader of the original


class Wish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One root component as the document wants it. `merge` is None when nothing is merged."""

    version: str
    merge: dict[str, Any] | None = None
    reset: tuple[str, ...] = ()
    run_with: component.RunWith | None = None


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployment document. `created_ms` is epoch milliseconds; `watch_s` below 0 means the default rule.

    `group` is the group it acts for: that of `on_behalf_of` for a sub-deployment, whose own target is in the ARN.
    `validation_silence_fails` is AWS's rule that a component which does not answer in time refuses (design decision 16).
    For `regret_s` after success a changed component that becomes BROKEN leads back (0: never).
    """

    deployment_id: str
    configuration_arn: str
    group: str
    created_ms: int
    components: dict[str, Wish] = {}
    failure_policy: str = ROLLBACK
    capabilities: tuple[str, ...] = ()
    deadline_s: float = DEADLINE_S
    watch_s: float = -1.0
    regret_s: float = REGRET_S
    update_action: str = NOTIFY
    update_timeout_s: float = UPDATE_TIMEOUT_S
    validation_timeout_s: float = VALIDATION_TIMEOUT_S
    validation_silence_fails: bool = False
    parent_target: str = ""
    on_behalf_of: str = ""


def read_cloud(data: Any) -> Document:
    """Reads a decoded job document or `fleetConfig`. Unknown keys are ignored.

    Raises NucleusError DEPLOYMENT_DOCUMENT_NOT_VALID that names the deployment and the key.
    """
    if not isinstance(data, dict):
        raise _invalid("?", "the document", "is not an object")
    deployment = str(data.get("deploymentId") or "")
    arn = data.get("configurationArn")
    if not deployment:
        raise _invalid("?", "deploymentId", "is missing")
    if not isinstance(arn, str) or ":configuration:" not in arn:
        raise _invalid(deployment, "configurationArn", "must be the ARN of a configuration")
    extras = _mapping(deployment, "marram", data)
    return Document(
        deployment_id=deployment,
        configuration_arn=arn,
        group=_group(deployment, _text(deployment, "onBehalfOf", data), arn),
        created_ms=int(_number(deployment, "creationTimestamp", data.get("creationTimestamp"))),
        components={
            name: _wish(deployment, name, wish) for name, wish in _mapping(deployment, "components", data).items()
        },
        failure_policy=_policy(deployment, data.get("failureHandlingPolicy")),
        capabilities=_texts(deployment, "requiredCapabilities", data),
        deadline_s=_seconds(deployment, "deadline_s", extras, DEADLINE_S),
        watch_s=_seconds(deployment, "watch_s", extras, -1.0),
        regret_s=_seconds(deployment, "regret_s", extras, REGRET_S),
        validation_silence_fails=_word(deployment, "validation_timeout", extras, ("pass", "fail")) == "fail",
        parent_target=_text(deployment, "parentTargetArn", data),
        on_behalf_of=_text(deployment, "onBehalfOf", data),
        **_asking(deployment, data),
    )


def parse_cloud(text: bytes | str) -> Document:
    """Like read_cloud, from JSON text of at most MAX_BYTES."""
    if len(text) > MAX_BYTES:
        raise errors.NucleusError(
            "DEPLOYMENT_DOCUMENT_SIZE_EXCEEDED", f"cannot read the document: over {MAX_BYTES} bytes"
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise errors.NucleusError("DEPLOYMENT_DOCUMENT_PARSE_ERROR", f"cannot read the document: {why}") from error
    return read_cloud(data)


def local_group(request: local_words.LocalRequest) -> str:
    return f"thinggroup/{request.group}" if request.group else LOCAL_GROUP


def local(
    request: local_words.LocalRequest, *, deployment_id: str, created_ms: int, running_roots: Mapping[str, str]
) -> Document:
    """Makes the document of a local deployment: the group's running roots, less the removed, plus the added ones.

    `updates` maps a component to `{"MERGE": {...}, "RESET": [...]}`; one that is no root of the group is refused, because
    the original accepts it and does nothing (nucleus issue 1765).
    """
    group = local_group(request)
    roots = {name: version for name, version in running_roots.items() if name not in request.remove} | request.add
    stray = sorted(set(request.updates) - set(roots))
    if stray:
        raise errors.NucleusError(
            "COMPONENT_METADATA_NOT_VALID_IN_DEPLOYMENT",
            f"cannot change the configuration of {', '.join(stray)}: not a root component of {group}; "
            "name it with its version as well",
        )
    wishes = {}
    for name, version in roots.items():
        update = request.updates.get(name) or {}
        wishes[name] = Wish(
            version=version,
            merge=update.get("MERGE"),
            reset=tuple(update.get("RESET") or ()),
            run_with=request.run_with.get(name),
        )
    return Document(
        deployment_id=deployment_id,
        configuration_arn=deployment_id,
        group=group,
        created_ms=created_ms,
        components=wishes,
        failure_policy=request.failure_policy or DO_NOTHING,
        update_action=SKIP,
        validation_timeout_s=LOCAL_VALIDATION_TIMEOUT_S,
    )


def is_local(wanted: Document) -> bool:
    """Whether it was made on the device, by its clock: such a document names itself where others name a revision."""
    return wanted.configuration_arn == wanted.deployment_id


def _group(deployment: str, on_behalf_of: str, arn: str) -> str:
    """`thinggroup/NAME` or `thing/NAME` from `…:configuration:thinggroup/NAME:REVISION`, or the group acted for."""
    if on_behalf_of:
        group = on_behalf_of.rsplit(":", 1)[-1]
        if not group.startswith("thinggroup/") or group == "thinggroup/":
            raise _invalid(deployment, "onBehalfOf", "must be the ARN of a thing group")
        return group
    return arn.split(":configuration:", 1)[1].rsplit(":", 1)[0]


def _wish(deployment: str, name: str, data: Any) -> Wish:
    where = f"components.{name}"
    if not isinstance(data, dict) or not isinstance(data.get("version"), str):
        raise _invalid(deployment, f"{where}.version", "must be a version")
    update = _mapping(deployment, "configurationUpdate", data, where)
    merge = _mapping(deployment, "merge", update, f"{where}.configurationUpdate")
    reset = _texts(deployment, "reset", update, f"{where}.configurationUpdate")
    run_with = _mapping(deployment, "runWith", data, where)
    return Wish(
        version=data["version"],
        merge=merge if update.get("merge") is not None else None,
        reset=reset,
        run_with=_run_with(deployment, where, run_with) if run_with else None,
    )


def _run_with(deployment: str, where: str, data: dict[str, Any]) -> component.RunWith:
    where = f"{where}.runWith"
    limits = _mapping(deployment, "systemResourceLimits", data, where)
    return component.RunWith(
        posix_user=str(data.get("posixUser") or ""),
        memory_kb=int(_number(deployment, f"{where}.memory", limits.get("memory") or 0)),
        cpus=float(_number(deployment, f"{where}.cpus", limits.get("cpus") or 0.0)),
    )


def _asking(deployment: str, data: dict[str, Any]) -> dict[str, Any]:
    """How components are asked: componentUpdatePolicy and configurationValidationPolicy."""
    update = _mapping(deployment, "componentUpdatePolicy", data)
    validation = _mapping(deployment, "configurationValidationPolicy", data)
    return {
        "update_action": _word(deployment, "action", update, (NOTIFY, SKIP), "componentUpdatePolicy"),
        "update_timeout_s": _timeout(deployment, "componentUpdatePolicy", update, UPDATE_TIMEOUT_S),
        "validation_timeout_s": _timeout(deployment, "configurationValidationPolicy", validation, VALIDATION_TIMEOUT_S),
    }


def _timeout(deployment: str, where: str, policy: dict[str, Any], default: float) -> float:
    value = policy.get("timeout")
    seconds = default if value is None else _number(deployment, f"{where}.timeout", value)
    if seconds < 0:
        raise _invalid(deployment, f"{where}.timeout", "must not be negative")
    return float(seconds)


def _word(deployment: str, key: str, data: dict[str, Any], allowed: tuple[str, str], where: str = "marram") -> str:
    """One of two words; the first is the default."""
    value = data.get(key) or allowed[0]
    if value not in allowed:
        raise _invalid(deployment, f"{where}.{key}", f"is {value!r}; use {' or '.join(allowed)}")
    return str(value)


def _text(deployment: str, key: str, data: dict[str, Any]) -> str:
    value = data.get(key) or ""
    if not isinstance(value, str):
        raise _invalid(deployment, key, "must be text")
    return value


def _policy(deployment: str, value: Any) -> str:
    if value in (None, ROLLBACK, DO_NOTHING):
        return str(value or ROLLBACK)
    raise _invalid(deployment, "failureHandlingPolicy", f"is {value!r}; use {ROLLBACK} or {DO_NOTHING}")


def _mapping(deployment: str, key: str, data: dict[str, Any], where: str = "") -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise _invalid(deployment, f"{where}.{key}".lstrip("."), "must be an object")
    return value


def _texts(deployment: str, key: str, data: dict[str, Any], where: str = "") -> tuple[str, ...]:
    value = data.get(key) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        what = "JSON pointers" if key == "reset" else "text"
        raise _invalid(deployment, f"{where}.{key}".lstrip("."), f"must be a list of {what}")
    return tuple(value)


def _number(deployment: str, key: str, value: Any) -> float:
    """Numbers may arrive as doubles (spec/cloud.md 3.3)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        unit = " of milliseconds" if key == "creationTimestamp" else ""
        raise _invalid(deployment, key, f"must be a number{unit}")
    return value


def _seconds(deployment: str, key: str, extras: dict[str, Any], default: float) -> float:
    """Ours come from tags, so also as text."""
    value = extras.get(key, default)
    try:
        return float(_number(deployment, f"marram.{key}", float(value) if isinstance(value, str) else value))
    except ValueError:
        raise _invalid(deployment, f"marram.{key}", "must be a number of seconds") from None


def _invalid(deployment: str, key: str, why: str) -> errors.NucleusError:
    return errors.NucleusError(
        "DEPLOYMENT_DOCUMENT_NOT_VALID", f"cannot read the document of deployment {deployment}: {key} {why}"
    )
