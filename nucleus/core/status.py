"""Results of deployments and the fleet status message (spec/nucleus.md 5.13, 6.1; spec/cloud.md 3.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import errors, progress
from nucleus.core.lifecycle import Health, State

RUNTIME = "marram"  # in `runtime`: the cloud gives our extensions only to devices that name it
VERSION = "2.15.0"  # the nucleus version we claim (design.md decision 19)
MAX_DETAIL = 1024  # characters of one value of statusDetails
MAX_MESSAGE_BYTES = 128_000

SUCCEEDED, FAILED, REJECTED, CANCELED = "SUCCEEDED", "FAILED", "REJECTED", "CANCELED"


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a deployment ended. `detailed` is a word of spec 5.13 (SUCCESSFUL, FAILED_ROLLBACK_COMPLETE, …).

    `note` is what there is to know of a success.
    """

    status: str
    detailed: str
    cause: str = ""
    stack: tuple[str, ...] = ()
    note: str = ""

    def types(self) -> tuple[str, ...]:
        return errors.error_types(self.stack)


def success(note: str = "") -> Result:
    return Result(status=SUCCEEDED, detailed="SUCCESSFUL", note=note)


def failure(failed: progress.Failed, detailed: str) -> Result:
    return Result(status=FAILED, detailed=detailed, cause=failed.cause, stack=("DEPLOYMENT_FAILURE", *failed.stack))


def canceled(cause: str = "") -> Result:
    return Result(status=CANCELED, detailed=CANCELED, cause=cause)


def rejected(code: str, cause: str) -> Result:
    return Result(status=REJECTED, detailed="REJECTED", cause=cause, stack=("DEPLOYMENT_REJECTED", code))


def job_details(result: Result) -> dict[str, str]:
    """`statusDetails` of the job update: a flat map, each value at most MAX_DETAIL characters."""
    details = {"detailed-deployment-status": result.detailed}
    if result.cause:
        details["deployment-failure-cause"] = result.cause
        details["deployment-error-stack"] = f"[{', '.join(result.stack)}]"
        details["deployment-error-types"] = f"[{', '.join(result.types())}]"
    if result.note:
        details["marram-note"] = result.note
    return {key: value[:MAX_DETAIL] for key, value in details.items()}


def details(result: Result) -> dict[str, Any]:
    """`statusDetails` of the shadow's reported part and of the fleet status message; a shadow holds 8 KB in all."""
    found: dict[str, Any] = {"detailedStatus": result.detailed}
    if result.cause:
        found |= {
            "failureCause": result.cause[:MAX_DETAIL],
            "errorStack": list(result.stack),
            "errorTypes": list(result.types()),
        }
    if result.note:
        found["marramNote"] = result.note[:MAX_DETAIL]
    return found


def component_entry(one: Health, *, arns: Iterable[str], is_root: bool) -> dict[str, Any]:
    bad = one.state in (State.ERRORED, State.BROKEN)
    return {
        "componentName": one.name,
        "version": one.version,
        "fleetConfigArns": list(arns),
        "isRoot": is_root,
        "status": one.state.name,
        "componentStatusDetails": {"statusCodes": [one.status_code], "statusReason": one.reason} if bad else None,
    }


def messages(header: Mapping[str, Any], components: list[dict[str, Any]], encode: Any) -> list[bytes]:
    """Fleet status payloads of at most MAX_MESSAGE_BYTES each, split by component; `encode` gives JSON bytes.

    One component that does not fit alone is left out, as the original does.
    """
    whole = encode({**header, "components": components})
    if len(whole) <= MAX_MESSAGE_BYTES:
        return [whole]
    room = MAX_MESSAGE_BYTES - len(
        encode({**header, "components": [], "chunkInfo": {"chunkId": 9999, "totalChunks": 9999}})
    )
    chunks: list[list[dict[str, Any]]] = [[]]
    used = 0
    for entry in components:
        size = len(encode(entry)) + 2  # and the comma, with a blank at most
        if size > room:
            continue
        if used + size > room:
            chunks.append([])
            used = 0
        chunks[-1].append(entry)
        used += size
    total = len(chunks)
    return [
        encode({**header, "components": part, "chunkInfo": {"chunkId": number, "totalChunks": total}})
        for number, part in enumerate(chunks, 1)
    ]


def overall(health: Iterable[Health]) -> str:
    """UNHEALTHY iff at least one component is BROKEN (spec 6.1)."""
    return "UNHEALTHY" if any(one.state is State.BROKEN for one in health) else "HEALTHY"
