"""Topics and payloads of deployments over MQTT: IoT Jobs in the Greengrass namespace, and the deployment shadow.

Source: spec/cloud.md 3.2 to 3.5. Used by the device's listeners and by the service.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

NAMESPACE = "aws-gg-deployment"
SHADOW = "AWSManagedGreengrassV2Deployment"
LISTED = 10  # executions in one notification at most; a full list may not name all
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"})


def jobs_prefix(thing: str) -> str:
    return f"$aws/things/{thing}/jobs"


def next_get(thing: str) -> str:
    return f"{jobs_prefix(thing)}/$next/namespace-{NAMESPACE}/get"


def update(thing: str, job_id: str) -> str:
    return f"{jobs_prefix(thing)}/{job_id}/namespace-{NAMESPACE}/update"


def notify(thing: str) -> str:
    return f"{jobs_prefix(thing)}/notify-namespace-{NAMESPACE}"


def notify_next(thing: str) -> str:
    return f"{jobs_prefix(thing)}/notify-next-namespace-{NAMESPACE}"


def shadow(thing: str, name: str = SHADOW) -> str:
    """Prefix of a named shadow's topics; the classic shadow has the empty name."""
    base = f"$aws/things/{thing}/shadow"
    return f"{base}/name/{name}" if name else base


def fleet_status(thing: str) -> str:
    return f"$aws/things/{thing}/greengrassv2/health/json"


class Execution(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """One job execution as the service describes it; times are epoch seconds."""

    job_id: str
    thing_name: str = ""
    status: str = "QUEUED"
    status_details: dict[str, str] = {}
    queued_at: float = 0
    started_at: float | None = None
    last_updated_at: float = 0
    version_number: int = 1
    execution_number: int = 1
    job_document: dict[str, Any] | None = None


class NextAnswer(Struct, rename="camel", omit_defaults=True):
    """`$next/get/accepted` and `notify-next`: without `execution` nothing is pending."""

    timestamp: float = 0
    client_token: str | None = None
    execution: Execution | None = None


class JobUpdate(Struct, rename="camel", omit_defaults=True):
    """A device's update of its execution. Unknown members are ignored."""

    status: str
    status_details: dict[str, str] | None = None
    expected_version: int | None = None
    client_token: str | None = None
    include_job_execution_state: bool = False
    include_job_document: bool = False


def listed(executions: Any) -> frozenset[str]:
    """The job ids of a notification's `jobs`, `{"QUEUED": [{"jobId": …}, …], "IN_PROGRESS": […]}`; `{}` names none."""
    groups = executions.values() if isinstance(executions, dict) else ()
    entries = [one for group in groups if isinstance(group, list) for one in group]
    return frozenset(str(one.get("jobId")) for one in entries if isinstance(one, dict))


def read_next(payload: bytes) -> NextAnswer:
    """Raises msgspec.MsgspecError (ValidationError or DecodeError) for anything else than an answer."""
    return msgspec.json.decode(payload, type=NextAnswer)
