"""The end of a log file that grows and is rotated, read without waiting."""

from __future__ import annotations

import os
from pathlib import Path

LOOK_S = 0.2  # between two looks at a followed file


class Tail:
    """What is written to `path` from byte `at` on, also to its successor when it is rotated."""

    def __init__(self, path: Path, at: int) -> None:
        self._path = path
        self._stream = path.open(encoding="utf-8", errors="replace")
        self._stream.seek(at)
        self._rest = ""

    def read(self) -> str:
        """New text, "" if there is none now; a rotated file is read to its end first."""
        text = self._stream.read()
        if not text and self._replaced():
            self._stream.close()
            self._stream = self._path.open(encoding="utf-8", errors="replace")
            text = self._stream.read()
        return text

    def lines(self) -> list[str]:
        """New whole lines without their ends."""
        *whole, self._rest = (self._rest + self.read()).split("\n")
        return whole

    def close(self) -> None:
        self._stream.close()

    def _replaced(self) -> bool:
        """Whether another file has the name by now."""
        held = os.fstat(self._stream.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False  # between the rename and the new file
        return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)
