"""`marram get-debug-password`: user and password for what asks for them on this device, as greengrass-cli has it."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from nucleus.cli import daemon, output


@click.command("get-debug-password")
@daemon.option
@output.option
def get(root: Path, output_: str) -> None:
    """Makes a password for this device's local user; the nucleus keeps only its hash and forgets it when it restarts."""
    with daemon.connect(root) as ipc:
        made = ipc.call("CreateDebugPassword")
    until = datetime.datetime.fromtimestamp(made["passwordExpiration"], datetime.UTC).isoformat(timespec="seconds")
    if output_ == "json":
        output.record(
            "debugPassword", {"username": made["username"], "password": made["password"], "until": until}, output_
        )
        return
    click.echo(f"Username: {made['username']}\nPassword: {made['password']}\nPassword will expire at: {until}")
