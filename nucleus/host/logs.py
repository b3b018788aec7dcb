"""The daemon's log and the log files of components: events as lines of text or JSON, rotated by size, bounded in total.

A line of text reads `<ISO instant> [LEVEL] (thread) logger: event. message. {key=value, …}`, as tools of the field expect
(spec/nucleus.md 9.2). A write error never reaches the caller: lines are lost and counted, and told once writing works again.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleus.core import log_settings

FILE_BYTES = 1024 * 1024  # `fileSizeKB`
TOTAL_BYTES = 10 * 1024 * 1024  # `totalLogsSizeKB`, of one family of files
LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40}
TEXT, JSON = "TEXT", "JSON"
DAEMON_FILE = "greengrass.log"  # the name everybody of this field looks for


class Style:
    """How lines are written and files kept; shared by the logs of one daemon, so that a change holds for all at once."""

    def __init__(
        self, *, form: str = TEXT, level: str = "INFO", file_bytes: int = FILE_BYTES, total_bytes: int = TOTAL_BYTES
    ) -> None:
        self.form = form
        self.level = LEVELS[level]
        self.file_bytes = file_bytes
        self.total_bytes = total_bytes

    def adopt(self, found: log_settings.LogSettings) -> None:
        """From the next line on; the level is that of the daemon's events, what components write is never left out."""
        self.form = found.form
        self.level = LEVELS[found.level]
        self.file_bytes = found.file_kb * 1024
        self.total_bytes = found.total_kb * 1024


class RotatedFile:
    """`<stem>.log`, moved to `<stem>_yyyy_MM_dd_HH_<i>.log` when it is full; the oldest go when all are too large."""

    def __init__(self, path: Path, style: Style) -> None:
        self._path = path
        self._style = style
        self._descriptor = -1
        self._size = 0
        self._torn = False
        self.lost = 0

    def write(self, data: bytes, lines: int = 1) -> bool:
        """Appends whole lines; False when they could not be written, then they are added to `lost`."""
        try:
            self._make_room(len(data))
            if self._torn:  # a full disk may have cut the last line
                data = b"\n" + data
            written = os.write(self._descriptor, data)
        except OSError:
            self.lost += lines
            self.close()
            return False
        self._size += written
        self._torn = written < len(data)
        self.lost += lines if self._torn else 0
        return not self._torn

    def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _make_room(self, size: int) -> None:
        self._open()
        if self._size and self._size + size > self._style.file_bytes:
            self.close()
            self._path.rename(self._next_name())
            self._delete_oldest()
            self._open()

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _next_name(self) -> Path:
        hour = datetime.datetime.now(datetime.UTC).strftime("%Y_%m_%d_%H")
        taken = [int(path.stem.rpartition("_")[2]) for path in self._rotated() if f"_{hour}_" in path.name]
        return self._path.with_name(f"{self._path.stem}_{hour}_{max(taken, default=-1) + 1}.log")

    def _rotated(self) -> list[Path]:
        """Rotated files of this family (not of `<stem>_other`), oldest first."""
        pattern = re.compile(re.escape(self._path.stem) + r"_(\d{4}_\d\d_\d\d_\d\d)_(\d+)\.log")
        found = [
            (match[1], int(match[2]), path)
            for path in self._path.parent.iterdir()
            if (match := pattern.fullmatch(path.name))
        ]
        return [path for _, _, path in sorted(found)]

    def _delete_oldest(self) -> None:
        """Leaves room for one full file."""
        files = self._rotated()
        sizes = [path.stat().st_size for path in files]
        for path, size in zip(files, sizes, strict=True):
            if sum(sizes) + self._style.file_bytes <= self._style.total_bytes:
                break
            path.unlink(missing_ok=True)
            sizes.remove(size)


class _Target:
    """Where lines of one log go, and from which level on."""

    def __init__(self, file: RotatedFile | None, style: Style) -> None:
        self.file = file
        self.style = style

    def write(self, line: str) -> None:
        if self.file is None:
            print(line, file=sys.stderr)
            return
        lost = self.file.lost
        if self.file.write(line.encode(errors="replace") + b"\n") and lost:
            self.file.lost = 0
            self.file.write(
                format_line(self.style.form, "WARN", "log", "log.lines_lost", "", {"lines": lost}).encode() + b"\n"
            )


class Log:
    """`log.info("component.exited", component=name, code=3)`: an event name and its fields.

    Without `directory` lines go to standard error. `bind` gives a log whose lines carry more fields.
    """

    def __init__(
        self,
        component: str = "nucleus",
        *,
        directory: Path | None = None,
        style: Style | None = None,
    ) -> None:
        self.style = style or Style()
        file = RotatedFile(directory / DAEMON_FILE, self.style) if directory is not None else None
        self._component = component
        self._fields: dict[str, Any] = {}
        self._target = _Target(file, self.style)

    def bind(self, **fields: Any) -> Log:
        bound = Log.__new__(Log)
        bound._component = self._component
        bound.style = self.style
        bound._fields = {**self._fields, **fields}
        bound._target = self._target
        return bound

    def debug(self, event: str, /, **fields: Any) -> None:
        self._write("DEBUG", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._write("INFO", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._write("WARN", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._write("ERROR", event, fields)

    def close(self) -> None:
        if self._target.file is not None:
            self._target.file.close()

    def _write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if LEVELS[level] < self.style.level:
            return
        self._target.write(format_line(self.style.form, level, self._component, event, "", {**self._fields, **fields}))


class Output:
    """The log file of one component: its standard output as INFO, its standard error as WARN."""

    def __init__(self, file: RotatedFile, component: str, style: Style) -> None:
        self._file = file
        self._component = component
        self._style = style

    def write(self, stream: str, lines: list[str], *, phase: str, state: str) -> None:
        """Appends lines that a script wrote; `stream` is stdout or stderr."""
        contexts = {
            "scriptName": f"services.{self._component}.lifecycle.{phase.capitalize()}.Script",
            "serviceName": self._component,
            "currentState": state,
        }
        level = "INFO" if stream == "stdout" else "WARN"
        text = "".join(
            format_line(self._style.form, level, self._component, stream, line, contexts) + "\n" for line in lines
        )
        lost = self._file.lost
        if self._file.write(text.encode(errors="replace"), len(lines)) and lost:
            self._file.lost = 0
            told = format_line(self._style.form, "WARN", self._component, "log.lines_lost", "", {"lines": lost})
            self._file.write(told.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def output(path: Path, component: str, style: Style | None = None) -> Output:
    """The writer for a component's output; `path` is `logs/<component>.log`, `style` that of the daemon's log."""
    style = style or Style()
    return Output(RotatedFile(path, style), component, style)


def format_line(form: str, level: str, logger: str, event: str, message: str, fields: Mapping[str, Any]) -> str:
    """One line without its end, stamped with the wall clock; line breaks in values are escaped."""
    milliseconds = time.time_ns() // 1_000_000
    if form == JSON:
        record = {
            "thread": "main",
            "level": level,
            "eventType": event,
            "message": message,
            "contexts": {key: str(value) for key, value in fields.items()},
            "loggerName": logger,
            "timestamp": milliseconds,
            "cause": None,
        }
        return json.dumps(record, ensure_ascii=False)
    instant = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    stamp = instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = f" {message}." if message else ""
    values = ", ".join(f"{key}={value}" for key, value in fields.items())
    context = f" {{{values}}}" if values else ""
    return _one_line(f"{stamp} [{level}] (main) {logger}: {event}.{told}{context}")


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
