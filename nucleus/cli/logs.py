"""`marram logs COMPONENT`: a device's log files, followed over rotation if asked."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from nucleus.cli import daemon, exits, log_tail
from nucleus.host import places

_DAEMON = "greengrass"  # the original's name for the daemon's own log


@click.command()
@click.argument("component", required=False)
@daemon.option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=100, show_default=True, help="How many last lines.")
def logs(component: str | None, root: Path, follow: bool, lines: int) -> None:
    """Shows the last lines of a component's log, or of the `nucleus`; without a name, which logs there are."""
    directory = places.Places(root.absolute()).logs
    known = sorted(path.stem for path in directory.glob("*.log"))
    if component is None:
        for name in known:
            click.echo(name)
        return
    if component == "nucleus":
        component = _DAEMON
    # A name, never a path: it may come from a script.
    if component not in known:
        have = ", ".join(known) or "none yet"
        raise exits.Failure(f"cannot show the log of {component}: {directory} has {have}")
    path = directory / f"{component}.log"
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in collections.deque(stream, maxlen=lines):
            click.echo(line, nl=False)
        at = stream.tell()
    if follow:
        for line in followed(path, at):
            click.echo(line, nl=False)


def followed(path: Path, at: int, stop: threading.Event | None = None) -> Iterator[str]:
    """Yields what is written to `path` after byte `at`, also to its successor when it is rotated; ends at `stop`."""
    stop = stop or threading.Event()
    tail = log_tail.Tail(path, at)
    try:
        while True:
            if text := tail.read():
                yield text
            elif stop.wait(log_tail.LOOK_S):
                return
    finally:
        tail.close()
