"""What a deployment's target is, who gets a new revision when, and what becomes of the revision before it.

Source: spec/cloud.md 1.6 and 6. Rates are not applied yet: every member is admitted at once, as AWS does without an
`iotJobConfiguration`.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

GROUP = "thinggroup"
THING = "thing"
ACTIVE = "ACTIVE"  # a group's deployment stays so: it is a continuous job (spec/cloud.md 8, point 5)
CANCELED = "CANCELED"
SUPERSEDED = "INACTIVE"  # by a newer revision of the same target; what had ended stays as it ended


class Target(Struct, frozen=True):
    """One thing or thing group: `arn:aws:iot:<region>:<account>:thing/<name>` or `…:thinggroup/<name>`."""

    kind: str
    name: str
    region: str
    account: str

    def arn(self) -> str:
        return f"arn:aws:iot:{self.region}:{self.account}:{self.kind}/{self.name}"


def target(arn: str) -> Target:
    """Raises ValueError for anything else than the ARN of a thing or a thing group."""
    fields = arn.split(":", 5)
    kind, _, name = fields[-1].partition("/")
    if len(fields) != 6 or fields[:3] != ["arn", "aws", "iot"] or kind not in (GROUP, THING) or not name:
        raise ValueError(f"cannot deploy to {arn!r}: it is the ARN of neither a thing nor a thing group")
    return Target(kind, name, fields[3], fields[4])


def configuration(arn: str) -> tuple[str, int] | None:
    """Target ARN and revision named by a configuration ARN (spec/cloud.md 1.4); None if it is none."""
    fields = arn.split(":", 6)
    if len(fields) != 7 or fields[5] != "configuration":
        return None
    resource, _, revision = fields[6].rpartition(":")
    if not resource or not revision.isascii() or not revision.isdigit() or len(revision) > 9:
        return None
    return f"arn:aws:iot:{fields[3]}:{fields[4]}:{resource}", int(revision)


def admit(waiting: Sequence[str], *, admitted: int) -> tuple[str, ...]:
    """The things of `waiting` that get their execution now, `admitted` others having theirs already."""
    del admitted  # the rates of iotJobConfiguration will count from it
    return tuple(waiting)


def ended(reported: str) -> str | None:
    """A thing deployment's status once its device reported this; None while it goes on."""
    return {"SUCCEEDED": "COMPLETED", "FAILED": "FAILED", "REJECTED": "FAILED", "CANCELED": "CANCELED"}.get(reported)
