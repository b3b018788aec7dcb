"""Ids of captures that are in the cloud and no more here, over restarts: so many of the newest, one a line, appended.

They are on disk before their records are removed, so that an id is always known by its record or by its line. A line that a
crash left half is nobody's: its record is still here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

LINE_BYTES = 37
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Ids:
    """In the file `path`, of which `keep` are known at a start; the file has twice as many lines at most. For one thread."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._lines = 0

    def read(self) -> list[str]:
        """The newest, the newest last; what is damaged is passed over. Raises OSError."""
        try:
            text = self._path.read_bytes().decode("ascii", "replace")
        except FileNotFoundError:
            return []
        found = [line for line in text.split("\n") if _ID.fullmatch(line)][-self._keep :]
        self._write(found)
        return found

    def add(self, identities: Sequence[str]) -> None:
        """Returns when they are safe. Raises OSError."""
        if self._lines + len(identities) > 2 * self._keep:
            self._write([*self.read(), *identities][-self._keep :])
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write("".join(f"{identity}\n" for identity in identities).encode("ascii"))
            file.flush()
            os.fsync(descriptor)
        self._lines += len(identities)

    def _write(self, identities: Sequence[str]) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write("".join(f"{identity}\n" for identity in identities).encode("ascii"))
            file.flush()
            os.fsync(descriptor)
        new.replace(self._path)
        self._lines = len(identities)
