"""The end of a log file that grows and is rotated, read without waiting."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TextIO

LOOK_S = 0.2  # between two looks at a followed file


class Tail:
    """What is written to `path` from byte `at` on, also to its successor when it is rotated."""

    def __init__(self, path: Path, at: int) -> None:
        self._path = path
        self._stream: TextIO = path.open(encoding="utf-8", errors="replace")
        self._stream.seek(at)
        self._rest = ""

    def read(self) -> str:
        """New text, "" if there is none now; a rotated file is read to its end first."""
        text = self._stream.read()
        while not text and (successor := self._successor()) is not None:
            text = self._stream.read()  # what was written between the last look and the rename
            if not text:
                self._stream.close()
                self._stream = successor
                text = self._stream.read()
        return text

    def lines(self) -> list[str]:
        """New whole lines without their ends."""
        *whole, self._rest = (self._rest + self.read()).split("\n")
        return whole

    def close(self) -> None:
        self._stream.close()

    def _successor(self) -> TextIO | None:
        """The file that follows in time, opened: several may have been filled since the last look; None if held is last."""
        held = _identity(os.fstat(self._stream.fileno()))
        try:
            if _identity(self._path.stat()) == held:
                return None
            family = [*_rotated(self._path), self._path]
            known = [_identity(path.stat()) for path in family]
            at = known.index(held) + 1 if held in known else 0  # deleted already: the oldest that is left
            return family[at].open(encoding="utf-8", errors="replace") if at < len(family) else None
        except FileNotFoundError:
            return None  # between the rename and the new file, or the oldest is just being deleted: the next look tells


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _rotated(path: Path) -> list[Path]:
    """The full files of this log as host/logs.py names them, oldest first."""
    pattern = re.compile(re.escape(path.stem) + r"_(\d{4}_\d\d_\d\d_\d\d)_(\d+)\.log")
    found = [(match[1], int(match[2]), one) for one in path.parent.iterdir() if (match := pattern.fullmatch(one.name))]
    return [one for _, _, one in sorted(found)]
