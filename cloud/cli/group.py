"""`marram group create`: thing groups, the usual targets of deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloud.cli import session as sessions


@click.command("create")
@click.argument("name")
@sessions.option
@click.option("--add", "things", multiple=True, help="Thing to add; repeatable.")
def create(name: str, root: Path | None, things: tuple[str, ...]) -> None:
    """Creates a thing group; one that exists stays as it is."""
    iot = sessions.open_session(root).client("iot")
    arn = ensure(iot, name)
    for thing in things:
        iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
    click.echo(f"Thing group {arn}" + (f" with {', '.join(things)}" if things else ""))


def ensure(iot: Any, name: str) -> str:
    """The ARN of a group, which is created if there is none."""
    try:
        return str(iot.create_thing_group(thingGroupName=name)["thingGroupArn"])
    except iot.exceptions.ResourceAlreadyExistsException:  # with a description or attributes of its own
        return str(iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])
