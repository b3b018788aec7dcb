"""`marram doctor`: what is wrong with this device, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from nucleus.cli import daemon, output
from nucleus.core import findings

_MARKS = {findings.GOOD: "ok", findings.WARNING: "WARN", findings.BAD: "ERROR"}


@click.command()
@daemon.option
@click.option("--offline", is_flag=True, help="Leave the endpoints of the cloud out.")
@output.option
def doctor(root: Path, offline: bool, output_: str) -> int:
    """Examines clock, disk, permissions, certificates, endpoints and cgroups of a device, and changes nothing.

    Exit code: 0 all is well, 1 warnings, 2 errors.
    """
    from nucleus import doctor as examination  # reads the daemon's settings; only this verb needs them

    found = []
    for one in examination.examine(root.absolute(), offline=offline):
        found.append(one)
        if output_ != "json":
            click.echo(f"{_MARKS[one.level]:<5}  {one.code}: {one.what}")
            if one.fix:
                click.echo(f"       fix: {one.fix}")
    if output_ == "json":
        output.show("findings", [msgspec.to_builtins(one) for one in found], {}, output_)
    return findings.exit_code(found)
