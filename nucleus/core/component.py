"""One component as it is installed: what the supervisor needs to run it.

Kept in the configuration tree at `services.<name>`; made by the deployer from recipe, document and configuration.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

HARD = "HARD"
SOFT = "SOFT"
UNREADABLE = "record unreadable"  # lifecycle key of a component whose record is damaged: why; no recipe can have it


class RunWith(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Who runs a component's processes; empty `posix_user` means the nucleus's default (`user[:group]`)."""

    posix_user: str = ""
    memory_kb: int = 0
    cpus: float = 0.0


class Component(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An installed component version, its lifecycle already interpolated.

    `dependencies` maps a name to HARD or SOFT. `lifecycle` maps a lower-case phase (`setenv install startup run shutdown
    recover bootstrap uninstall`) to its script or step object, as in the recipe reference, Lifecycle. `marram` is its
    configuration key of that name (core/care.py).
    """

    name: str
    version: str
    component_type: str = "aws.greengrass.generic"
    dependencies: dict[str, str] = {}
    lifecycle: dict[str, Any] = {}
    run_with: RunWith = RunWith()
    marram: dict[str, Any] = {}
