"""`marram nucleus run`: the daemon in the foreground. The one device verb that imports the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from nucleus.cli import exits
from nucleus.core import errors


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar=["MARRAM_DEVICE_ROOT", "GGC_ROOT_PATH"],
    help="The device's root folder.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Configuration that replaces the device's whole one, once; without it config.yaml in the root folder, "
    "below what deployments have set.",
)
def run(root: Path, config: Path | None) -> int:
    """Runs the nucleus of one device until SIGTERM or SIGINT."""
    from nucleus import app  # the daemon is imported for this verb alone

    try:
        return app.run(root.absolute(), config.absolute() if config else None)
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None
