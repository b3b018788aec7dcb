"""`marram logs COMPONENT`: a device's log files, followed over rotation if asked."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from nucleus.cli import daemon, exits
from nucleus.host import places

_DAEMON = "greengrass"  # the original's name for the daemon's own log
_LOOK_S = 0.2  # between two looks at a followed file


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
    stream = path.open(encoding="utf-8", errors="replace")
    stream.seek(at)
    try:
        while True:
            if text := stream.read():
                yield text
            elif _replaced(path, stream.fileno()):
                stream.close()
                stream = path.open(encoding="utf-8", errors="replace")
            elif stop.wait(_LOOK_S):
                return
    finally:
        stream.close()


def _replaced(path: Path, descriptor: int) -> bool:
    """Whether another file has the name by now."""
    held = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False  # between the rename and the new file
    return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)
