"""Who runs a component's scripts, in which shell, within which limits (spec/nucleus.md 2.7, 2.11).

Defaults come from the nucleus's configuration key `runWithDefault`, wishes from the deployment's `runWith`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import component

OWN = ""  # the nucleus's own user
SHELL = "sh"


class Defaults(Struct, frozen=True):
    """`runWithDefault` of the nucleus; a limit that is not above 0 is none."""

    posix_user: str = ""
    posix_shell: str = SHELL
    memory_kb: int = 0
    cpus: float = 0.0


class Limits(Struct, frozen=True):
    """Bounds of all processes of a component together; 0 is none."""

    memory_kb: int = 0
    cpus: float = 0.0


class NotChosen(Exception):  # noqa: N818  the word says it
    """Nobody said who shall run the component, and it must not be root by accident."""


def defaults(nucleus: Mapping[str, Any], fallback_user: str = OWN) -> Defaults:
    """Reads `runWithDefault` leniently: what has the wrong type counts as not given."""
    found = _mapping(nucleus.get("runWithDefault"))
    limits = _mapping(found.get("systemResourceLimits"))
    return Defaults(
        posix_user=str(found.get("posixUser") or fallback_user),
        posix_shell=str(found.get("posixShell") or SHELL),
        memory_kb=int(_above_zero(limits.get("memory"))),
        cpus=_above_zero(limits.get("cpus")),
    )


def choose(asked: str, default: Defaults, *, privileged: bool, is_root: bool) -> str:
    """`user[:group]` for a script, or OWN. Raises NotChosen: then the nucleus is root and nobody named a user."""
    if privileged:
        return OWN
    if asked or default.posix_user:
        return asked or default.posix_user
    if is_root:
        raise NotChosen(
            "the nucleus runs as root and no user is set; set runWith.posixUser in the deployment, "
            "runWithDefault.posixUser of aws.greengrass.Nucleus, or RequiresPrivilege: true in the recipe"
        )
    return OWN


def limits(asked: component.RunWith, default: Defaults) -> Limits:
    """Each bound of its own: the deployment's if it is above 0, else the default."""
    return Limits(
        memory_kb=asked.memory_kb if asked.memory_kb > 0 else default.memory_kb,
        cpus=asked.cpus if asked.cpus > 0 else default.cpus,
    )


def split(text: str) -> tuple[str, str]:
    """User and group ("" if not given) of `user[:group]`. Raises ValueError with what is wrong."""
    user, colon, group = text.partition(":")
    if not user or (colon and not group) or ":" in group or any(sign.isspace() or sign in "\0/" for sign in text):
        raise ValueError(f"{text!r} is not user or user:group")
    return user, group


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _above_zero(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return max(float(value), 0.0)
