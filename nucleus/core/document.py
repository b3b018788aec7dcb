"""Deployment documents: what a target shall run, as the cloud or a local user says it.

Sources: spec/nucleus.md 5.1 (cloud), 5.2 (local), 4.4 (configuration updates); spec/cloud.md 3.3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NewType

from msgspec import Struct

from nucleus.core import component, errors

DeploymentId = NewType("DeploymentId", str)

ROLLBACK = "ROLLBACK"
DO_NOTHING = "DO_NOTHING"
LOCAL_GROUP = "LOCAL_DEPLOYMENT"
DEADLINE_S = 1800.0  # ours: the original waits for ever (design.md decision 16); 0 = its endless wait
CAPABILITIES = frozenset({"LINUX_RESOURCE_LIMITS", "SUB_DEPLOYMENTS"})
MAX_BYTES = 10 * 1024 * 1024  # DeploymentDocumentDownloader of the original


class Wish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One root component as the document wants it. `merge` is None when nothing is merged."""

    version: str
    merge: dict[str, Any] | None = None
    reset: tuple[str, ...] = ()
    run_with: component.RunWith | None = None


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A deployment document. `created_ms` is epoch milliseconds; `watch_s` below 0 means the default rule."""

    deployment_id: str
    configuration_arn: str
    group: str
    created_ms: int
    components: dict[str, Wish] = {}
    failure_policy: str = ROLLBACK
    capabilities: tuple[str, ...] = ()
    deadline_s: float = DEADLINE_S
    watch_s: float = -1.0


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
    extras = data.get("marram") if isinstance(data.get("marram"), dict) else {}
    return Document(
        deployment_id=deployment,
        configuration_arn=arn,
        group=_group(str(data.get("onBehalfOf") or ""), arn),
        created_ms=int(_number(deployment, "creationTimestamp", data.get("creationTimestamp"))),
        components={
            name: _wish(deployment, name, wish) for name, wish in _mapping(deployment, "components", data).items()
        },
        failure_policy=_policy(deployment, data.get("failureHandlingPolicy")),
        capabilities=tuple(str(one) for one in data.get("requiredCapabilities") or ()),
        deadline_s=float(extras.get("deadline_s", DEADLINE_S)) if extras else DEADLINE_S,
        watch_s=float(extras.get("watch_s", -1.0)) if extras else -1.0,
    )


def parse_cloud(text: bytes | str) -> Document:
    """Like read_cloud, from JSON text of at most MAX_BYTES."""
    if len(text) > MAX_BYTES:
        raise errors.NucleusError(
            "DEPLOYMENT_DOCUMENT_SIZE_EXCEEDED", f"cannot read the document: over {MAX_BYTES} bytes"
        )
    try:
        data = json.loads(text)
    except ValueError as error:
        raise errors.NucleusError("DEPLOYMENT_DOCUMENT_PARSE_ERROR", f"cannot read the document: {error}") from error
    return read_cloud(data)


def local(
    *,
    deployment_id: str,
    group: str,
    created_ms: int,
    running_roots: Mapping[str, str],
    add: Mapping[str, str],
    remove: tuple[str, ...] = (),
    updates: Mapping[str, Any] | None = None,
    run_with: Mapping[str, component.RunWith] | None = None,
    failure_policy: str = "",
) -> Document:
    """Makes the document of a local deployment: the group's running roots, less the removed, plus the added ones.

    `updates` maps a component to `{"MERGE": {...}, "RESET": [...]}`; one that is no root of the group is refused, because
    the original accepts it and does nothing (nucleus issue 1765).
    """
    roots = {name: version for name, version in running_roots.items() if name not in remove} | dict(add)
    stray = sorted(set(updates or {}) - set(roots))
    if stray:
        raise errors.NucleusError(
            "COMPONENT_METADATA_NOT_VALID_IN_DEPLOYMENT",
            f"cannot change the configuration of {', '.join(stray)}: not a root component of {group}; "
            "name it with its version as well",
        )
    wishes = {}
    for name, version in roots.items():
        update = (updates or {}).get(name) or {}
        wishes[name] = Wish(
            version=version,
            merge=update.get("MERGE"),
            reset=tuple(update.get("RESET") or ()),
            run_with=(run_with or {}).get(name),
        )
    return Document(
        deployment_id=deployment_id,
        configuration_arn=deployment_id,
        group=group,
        created_ms=created_ms,
        components=wishes,
        failure_policy=failure_policy or DO_NOTHING,
    )


def _group(on_behalf_of: str, arn: str) -> str:
    """`thinggroup/NAME` or `thing/NAME` from `…:configuration:thinggroup/NAME:REVISION`."""
    if on_behalf_of:
        return on_behalf_of.rsplit(":", 1)[-1]
    return arn.split(":configuration:", 1)[1].rsplit(":", 1)[0]


def _wish(deployment: str, name: str, data: Any) -> Wish:
    where = f"components.{name}"
    if not isinstance(data, dict) or not isinstance(data.get("version"), str):
        raise _invalid(deployment, f"{where}.version", "must be a version")
    update = data.get("configurationUpdate") or {}
    merge, reset = update.get("merge"), update.get("reset") or ()
    if merge is not None and not isinstance(merge, dict):
        raise _invalid(deployment, f"{where}.configurationUpdate.merge", "must be an object")
    if isinstance(reset, str) or not all(isinstance(pointer, str) for pointer in reset):
        raise _invalid(deployment, f"{where}.configurationUpdate.reset", "must be a list of JSON pointers")
    run_with = data.get("runWith")
    return Wish(
        version=data["version"], merge=merge, reset=tuple(reset), run_with=_run_with(run_with) if run_with else None
    )


def _run_with(data: Mapping[str, Any]) -> component.RunWith:
    limits = data.get("systemResourceLimits") or {}
    return component.RunWith(
        posix_user=str(data.get("posixUser") or ""),
        memory_kb=int(limits.get("memory") or 0),
        cpus=float(limits.get("cpus") or 0.0),
    )


def _policy(deployment: str, value: Any) -> str:
    if value in (None, ROLLBACK, DO_NOTHING):
        return str(value or ROLLBACK)
    raise _invalid(deployment, "failureHandlingPolicy", f"is {value!r}; use {ROLLBACK} or {DO_NOTHING}")


def _mapping(deployment: str, key: str, data: dict[str, Any]) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise _invalid(deployment, key, "must be an object")
    return value


def _number(deployment: str, key: str, value: Any) -> float:
    """Numbers may arrive as doubles (spec/cloud.md 3.3)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(deployment, key, "must be a number of milliseconds")
    return value


def _invalid(deployment: str, key: str, why: str) -> errors.NucleusError:
    return errors.NucleusError(
        "DEPLOYMENT_DOCUMENT_NOT_VALID", f"cannot read the document of deployment {deployment}: {key} {why}"
    )
