"""Targets of deployments as people write them: GROUP, group:NAME or thing:NAME."""

from __future__ import annotations

import click

from cloud.cli import session as sessions


def arn(session: sessions.Session, target: str) -> str:
    """The ARN of a target; an ARN stays one."""
    if target.startswith("arn:"):
        return target
    kind, colon, name = target.partition(":")
    if not colon:
        kind, name = "group", target
    word = {"thing": "thing", "group": "thinggroup", "thinggroup": "thinggroup"}.get(kind)
    if word is None:
        raise click.BadParameter(f"{target!r} is neither GROUP nor thing:NAME")
    return f"arn:aws:iot:{session.region}:{session.account}:{word}/{name}"


def short(target_arn: str) -> str:
    """A target's ARN as people write it."""
    kind, _, name = target_arn.rpartition(":")[2].partition("/")
    return f"thing:{name}" if kind == "thing" else name
