"""`marram logs get|list-log-files|list-keywords`: log files chosen by filter and time, with greengrass-cli's options.

Unlike the original both forms of lines are read, rotated files included, and several files are merged by time.
"""

from __future__ import annotations

import datetime
import heapq
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from nucleus.cli import exits, log_tail
from nucleus.core import log_lines
from nucleus.host import places

Command = TypeVar("Command", bound=Callable[..., Any])

_ROTATED = re.compile(r"_\d{4}_\d\d_\d\d_\d\d_\d+\.log$")


def _files_option(command: Command) -> Command:
    root = click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        envvar=["MARRAM_DEVICE_ROOT", "GGC_ROOT_PATH"],
        help="The device's root folder (or MARRAM_DEVICE_ROOT), whose logs are read by default.",
    )
    kind = click.Path(path_type=Path, file_okay=False, exists=True)
    return root(click.option("-ld", "--log-dir", "folders", type=kind, multiple=True, help="Folder of logs.")(command))


@click.command("get")
@_files_option
@click.option(
    "-lf",
    "--log-file",
    "files",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="One log file; repeatable.",
)
@click.option(
    "-f", "--filter", "filters", multiple=True, metavar="WORD|REGEX|KEY=VALUE[,…]", help="Comma: or; repeated: and."
)
@click.option(
    "-t", "--time-window", "windows", multiple=True, metavar="BEGIN,END", help="Times, or offsets as -2h15min."
)
@click.option("-b", "--before", type=click.IntRange(min=0), default=0, help="Lines to show before each that is chosen.")
@click.option("-a", "--after", type=click.IntRange(min=0), default=0, help="Lines to show after each that is chosen.")
@click.option("-fol", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-v", "--verbose", is_flag=True, help="Show JSON lines as they are.")
@click.option(
    "-nc", "--no-color", is_flag=True, hidden=True, help="Accepted for greengrass-cli's sake: there is no colour."
)
def get(
    root: Path | None,
    folders: tuple[Path, ...],
    files: tuple[Path, ...],
    filters: tuple[str, ...],
    windows: tuple[str, ...],
    before: int,
    after: int,
    follow: bool,
    verbose: bool,
    no_color: bool,
) -> None:
    """Shows the lines of log files that pass every filter and lie in a time window, in the order of their times."""
    choice = _Choice(filters, windows, verbose)
    paths = [*files, *(_log_files(root, folders) if folders or not files else ())]
    sizes = {path: path.stat().st_size for path in paths}  # what comes later is for following, and told once
    tails = [log_tail.Tail(path, sizes[path]) for path in paths if follow and not _ROTATED.search(path.name)]
    merged = heapq.merge(*(_timed(path, sizes[path]) for path in paths), key=lambda pair: pair[0])
    for line in in_context((line for _, line in merged), choice.takes, before, after):
        click.echo(choice.told(line))
    if follow:
        for text in followed(tails, choice, threading.Event()):
            click.echo(text)


@click.command("list-log-files")
@_files_option
def list_log_files(root: Path | None, folders: tuple[Path, ...]) -> None:
    """Lists the log files of the device or of folders."""
    for path in _log_files(root, folders):
        click.echo(str(path))


@click.command("list-keywords")
def list_keywords() -> None:
    """Lists what `logs get --filter` understands as keys."""
    click.echo(f"level={'|'.join(log_lines.LEVELS)} (that level or a higher one)")
    for key in log_lines.KEYS[1:]:
        click.echo(f"{key}=TEXT")
    click.echo("and every key that a line has in its braces, for example serviceName=com.example.App or exitCode=1")


class _Choice:
    """Which lines to show, and how."""

    def __init__(self, filters: tuple[str, ...], windows: tuple[str, ...], verbose: bool) -> None:
        now = datetime.datetime.now().astimezone()
        self._filters = filters
        self._verbose = verbose
        try:
            self._windows = [log_lines.window(text, now) for text in windows]
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--time-window") from None

    def takes(self, line: log_lines.Line) -> bool:
        return log_lines.chosen(line, self._filters, self._windows)

    def told(self, line: log_lines.Line) -> str:
        return line.text if self._verbose else line.told()

    def is_over(self) -> bool:
        """Whether no line written from now on can lie in a window."""
        now_ms = datetime.datetime.now(datetime.UTC).timestamp() * 1000
        return bool(self._windows) and all(end < now_ms for _, end in self._windows)


def in_context(
    lines: Iterable[log_lines.Line], takes: Callable[[log_lines.Line], bool], before: int, after: int
) -> Iterator[log_lines.Line]:
    """The chosen lines, each with as many lines around it as asked, none of them twice."""
    held: list[log_lines.Line] = []
    following = 0
    for line in lines:
        if takes(line):
            yield from held
            yield line
            held, following = [], after
        elif following:
            yield line
            following -= 1
        elif before:
            held = [*held, line][-before:]


def followed(tails: list[log_tail.Tail], choice: _Choice, stop: threading.Event) -> Iterator[str]:
    """What is written from now on, until every window is over or `stop`."""
    try:
        while not choice.is_over():
            found = [log_lines.read(text) for tail in tails for text in tail.lines()]
            yield from (choice.told(line) for line in found if choice.takes(line))
            if not found and stop.wait(log_tail.LOOK_S):
                return
    finally:
        for tail in tails:
            tail.close()


def _timed(path: Path, size_bytes: int) -> Iterator[tuple[int, log_lines.Line]]:
    """A file's lines with the times to sort by: a line without one stays behind the line before it."""
    last_ms = 0
    with path.open("rb") as stream:
        while stream.tell() < size_bytes and (data := stream.readline(size_bytes - stream.tell())):
            line = log_lines.read(data.decode(errors="replace").rstrip("\r\n"))
            last_ms = max(last_ms, line.at_ms)
            yield last_ms, line


def _log_files(root: Path | None, folders: tuple[Path, ...]) -> list[Path]:
    if not folders and root is None:
        raise exits.Failure("cannot find logs: give --root, --log-dir or --log-file (or set MARRAM_DEVICE_ROOT)")
    chosen = folders or (places.Places((root or Path()).absolute()).logs,)
    return sorted(path for folder in chosen for path in folder.glob("*.log"))
