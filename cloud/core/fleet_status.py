"""Fleet-status messages as values: reading both nuclei's variants, their order, their parts, and what they mean.

Source: spec/cloud.md 3.5 (status/model/* of the Java nucleus, gg-fleet-statusd of nucleus lite).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

COMPLETE = "COMPLETE"
CLASSIC = "aws_nucleus_classic"
UNINSTALLED = "UNINSTALLED"  # nucleus lite's word for a component that is gone
CHUNKS = 256  # parts accepted of one message: 32 MB of 128 kB parts


class StatusDetails(Struct, rename="camel", frozen=True):
    """Why a component is broken; the Java nucleus sends null for a healthy one."""

    status_codes: list[str] | None = None
    status_reason: str | None = None


class Installed(Struct, rename="camel", frozen=True):
    """One component as the device has it."""

    component_name: str
    version: str = ""
    status: str = ""
    is_root: bool = False
    fleet_config_arns: list[str] | None = None
    component_status_details: StatusDetails | None = None


class Chunk(Struct, rename="camel", frozen=True):
    """Which part of a message this is, from 1; nucleus lite sends an empty object for "the only one"."""

    chunk_id: int = 1
    total_chunks: int = 1


class Deployment(Struct, rename="camel", frozen=True):
    """The deployment that caused the message; nucleus lite sends an empty object for none."""

    deployment_id: str = ""
    status: str = ""
    status_details: dict[str, Any] | None = None


class Extension(Struct, rename="camel", frozen=True):
    """What only our nucleus says: why not everything that is installed runs."""

    mode: str = ""
    reason: str = ""


class Message(Struct, rename="camel", frozen=True):
    """One fleet-status message. `timestamp` is the device's clock in epoch milliseconds."""

    ggc_version: str = ""
    platform: str = ""
    architecture: str = ""
    runtime: str = CLASSIC
    overall_device_status: str = "HEALTHY"
    sequence_number: int = 0
    timestamp: int = 0
    message_type: str = "PARTIAL"
    trigger: str = ""
    chunk_info: Chunk | None = None
    components: list[Installed] | None = None
    deployment_information: Deployment | None = None
    marram: Extension | None = None

    def chunk(self) -> Chunk:
        return self.chunk_info or Chunk()


class Refused(Struct, frozen=True):
    """Why a message was not taken."""

    reason: str


def read(payload: bytes) -> Message | Refused:
    """The message in a payload, or why it is none."""
    try:
        message = msgspec.json.decode(payload, type=Message, strict=False)
    except (msgspec.MsgspecError, RecursionError) as error:
        return Refused(f"cannot read the fleet status: {error}")
    chunk = message.chunk()
    if not 1 <= chunk.chunk_id <= chunk.total_chunks <= CHUNKS:
        return Refused(f"cannot read the fleet status: part {chunk.chunk_id} of {chunk.total_chunks}")
    return message


def is_news(message: Message, last_sequence: int, last_ms: int) -> bool:
    """Whether a message follows what is known; repeated and overtaken ones do not.

    A device that was installed anew counts from 1 again: a lower number is taken from a COMPLETE message whose clock is
    ahead of the last one's, and always when it is 1 or 0.
    """
    if message.sequence_number > last_sequence:
        return True
    if message.sequence_number == last_sequence:
        return message.chunk().total_chunks > 1 or message.timestamp > last_ms
    return message.sequence_number <= 1 or (message.message_type == COMPLETE and message.timestamp > last_ms)


def assemble(parts: Sequence[Message]) -> Message | None:
    """The whole message once every part is there, else None."""
    by_id = {part.chunk().chunk_id: part for part in parts}
    last = parts[-1]
    if len(by_id) < last.chunk().total_chunks:
        return None
    listed = [one for chunk_id in sorted(by_id) for one in by_id[chunk_id].components or ()]
    return msgspec.structs.replace(last, components=listed)


def job_details(details: dict[str, Any]) -> dict[str, str]:
    """A message's `statusDetails` in the spelling of job executions (nucleus lite reports them only here)."""
    spelled = {
        "detailed-deployment-status": details.get("detailedStatus"),
        "deployment-failure-cause": details.get("failureCause"),
        "deployment-error-stack": details.get("errorStack"),
        "deployment-error-types": details.get("errorTypes"),
    }
    return {key: _text(value)[:1024] for key, value in spelled.items() if value}


def outcome(details: dict[str, Any]) -> tuple[str, dict[str, list[str]]]:
    """`reason` and `statusDetails` of an effective deployment, from a job's or a shadow's status details.

    The reason reads `<most specific error code>: <detailed status>: <cause>` without what is missing, so SUCCESSFUL
    for a success (developer guide, deployment health notifications).
    """
    stack = _words(details.get("deployment-error-stack", details.get("errorStack")))
    types = _words(details.get("deployment-error-types", details.get("errorTypes")))
    detailed = _text(details.get("detailed-deployment-status", details.get("detailedStatus")))
    cause = _text(details.get("deployment-failure-cause", details.get("failureCause")))
    reason = ": ".join(part for part in (*stack[-1:], detailed, cause) if part)
    return reason, {"errorStack": stack, "errorTypes": types}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _words(value: Any) -> list[str]:
    """A list of codes: as JSON, or as Java prints one (`[A, B]`)."""
    if isinstance(value, list):
        return [str(one) for one in value]
    return [word.strip().strip('"') for word in _text(value).strip().strip("[]").split(",") if word.strip()]
