"""A deployment as an operator follows it: one value per device, read from the service, judged without side effects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from cloud.cli import session as sessions
from nucleus.cli import exits

WAITING_FOR = "marram-waiting-for"  # written by our nucleus with its IN_PROGRESS updates
_GOOD = ("SUCCEEDED", "COMPLETED")
_BAD = ("FAILED", "REJECTED", "TIMED_OUT")
_ENDED = (*_GOOD, *_BAD, "CANCELED")
_WORDS = {"QUEUED": "queued", "IN_PROGRESS": "in progress", "COMPLETED": "SUCCEEDED"}


class Component(Struct, frozen=True):
    name: str
    version: str
    state: str


class Device(Struct, frozen=True, rename="camel"):
    """`status` is that of the job execution, or of the thing's deployment; details are the device's own words."""

    thing: str
    status: str
    status_details: dict[str, Any] = {}
    components: tuple[Component, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    @property
    def failed(self) -> bool:
        return self.status in _BAD

    @property
    def succeeded(self) -> bool:
        return self.status in _GOOD

    @property
    def detail(self) -> str:
        """SUCCESSFUL, FAILED_ROLLBACK_COMPLETE …, from either carrier."""
        return str(
            self.status_details.get("detailed-deployment-status") or self.status_details.get("detailedStatus", "")
        )

    @property
    def cause(self) -> str:
        """Why it failed, in one line; with its code where nothing was changed: what was refused beforehand."""
        told = self.status_details.get("deployment-failure-cause") or self.status_details.get("failureCause") or ""
        text, code = " ".join(str(told).split()), self._code
        shown = text and code and code not in text and self.detail == "FAILED_NO_STATE_CHANGE"
        return f"{text} [{code}]" if shown else text

    @property
    def _code(self) -> str:
        """The most particular word of the error stack, a list or "[A, B]"."""
        stack = self.status_details.get("deployment-error-stack") or self.status_details.get("errorStack") or ""
        words = stack.strip("[]").split(", ") if isinstance(stack, str) else [str(word) for word in stack]
        return words[-1] if words else ""

    def line(self) -> str:
        """What a person wants to know of this device now; why it failed is told once for all devices (`causes`)."""
        words = _WORDS.get(self.status, self.status)
        if self.status == "IN_PROGRESS" and (waiting := str(self.status_details.get(WAITING_FOR, ""))):
            return f"{words} ({waiting})"
        if self.failed:
            after = {"FAILED_ROLLBACK_COMPLETE": "rolled back", "FAILED_NO_STATE_CHANGE": "nothing was changed"}
            return f"{words}, {after.get(self.detail, self.detail or 'no details given')}"
        return words


class Standing(Struct, frozen=True, rename="camel"):
    """A deployment at one moment; `status` is the deployment's own (ACTIVE, CANCELED, INACTIVE, …)."""

    deployment_id: str
    status: str
    devices: tuple[Device, ...] = ()

    @property
    def ended(self) -> bool:
        return all(device.ended for device in self.devices)

    @property
    def failures(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.failed)


def read(session: sessions.Session, deployment_id: str) -> Standing:
    """The standing now."""
    return msgspec.convert(session.get(f"/marram/v1/deployments/{deployment_id}/devices"), Standing)


def exit_code(standing: Standing) -> int:
    """How the deployment ended: 0 everywhere good, 3 if every failed device was rolled back, otherwise 2."""
    if all(device.succeeded for device in standing.devices):
        return exits.OK
    rest = [device for device in standing.devices if not device.succeeded]
    if all(device.detail == "FAILED_ROLLBACK_COMPLETE" for device in rest):
        return exits.ROLLED_BACK
    return exits.UNSATISFIED


def causes(devices: Iterable[Device]) -> Sequence[tuple[str, Sequence[str]]]:
    """The failed devices grouped by cause: many devices usually fail for one reason."""
    found: dict[str, list[str]] = {}
    for device in devices:
        if device.failed:
            found.setdefault(device.cause or device.detail or "no reason given", []).append(device.thing)
    return list(found.items())
