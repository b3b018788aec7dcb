"""`marram nucleus restart`: a new process image of the daemon under components that go on running."""

from __future__ import annotations

from pathlib import Path

import click

from nucleus.cli import daemon


@click.command()
@daemon.option
def restart(root: Path) -> None:
    """Restarts the nucleus of one device; components, their connections and subscriptions stay."""
    with daemon.connect(root) as nucleus:
        nucleus.call("marram#RestartNucleus", {})
    click.echo(f"The nucleus of {root} restarts under its components; `marram logs nucleus` shows how it went.")
