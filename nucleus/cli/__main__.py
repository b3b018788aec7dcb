"""The `marram` command: joins the tables of verbs of all installed packages into one tree and runs one verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from nucleus.cli import exits, lazy, tables

_HELP = "Marram: components on devices, deployed, watched and rolled back. `marram demo` shows it on this machine."
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; errors are told on the error output."""
    try:
        code = _group().main(list(arguments), prog_name="marram", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return exits.ERROR
    except click.Abort:
        click.echo("Stopped.", err=True)
        return _INTERRUPTED
    except exits.Failure as failure:
        click.echo(f"marram: {failure}", err=True)
        return failure.code
    except BrokenPipeError:
        # The reader went away (`marram get … | head`): nobody is left to tell, and Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.ERROR
    return code if isinstance(code, int) else exits.OK


def _group() -> click.Group:
    rows = tuple(row for table in tables.load("marram.verbs") for row in table)
    group = lazy.Verbs("marram", lazy.tree(rows).below, _HELP)
    return click.version_option(package_name="marram", message="%(package)s %(version)s")(group)


if __name__ == "__main__":
    main()
