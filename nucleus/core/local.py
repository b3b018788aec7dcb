"""A local deployment as a user asks for it and as it is told about (spec/ipc.md 3, CreateLocalDeployment)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from nucleus.core import component


class LocalRequest(Struct, frozen=True, kw_only=True):
    """What a local deployment shall change in one group.

    `add` maps component to exact version, `updates` component to `{"MERGE": {...}, "RESET": [...]}`. The directories are
    absolute and exist, or are empty. Empty `group` means LOCAL_DEPLOYMENT, empty `failure_policy` the default.
    """

    group: str = ""
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()
    updates: dict[str, Any] = {}
    run_with: dict[str, component.RunWith] = {}
    recipe_directory: str = ""
    artifacts_directory: str = ""
    failure_policy: str = ""


class LocalStatus(Struct, frozen=True, kw_only=True):
    """How a local deployment stands. `created_at` is epoch seconds.

    `status` is QUEUED, IN_PROGRESS, SUCCEEDED, FAILED or CANCELED; `detail` a DetailedDeploymentStatus, empty while open.
    """

    deployment_id: str
    status: str
    created_at: float
    detail: str = ""
    error_stack: tuple[str, ...] = ()
    error_types: tuple[str, ...] = ()
    failure_cause: str = ""
