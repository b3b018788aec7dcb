"""`marram selftest`: does this release work on this device, and can it read what is there? Changes nothing."""

from __future__ import annotations

from pathlib import Path

import click

from nucleus.cli import daemon, exits
from nucleus.core import errors


@click.command()
@daemon.option
def selftest(root: Path) -> int:
    """Checks imports, TLS and the store of a root without touching it; the last line is this release's version."""
    from nucleus import selftest as checks  # the daemon is imported for this verb and `nucleus run` alone

    try:
        for sentence in checks.run(root.absolute()):
            click.echo(sentence)
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None
    return exits.OK
