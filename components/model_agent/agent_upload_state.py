"""What uploads remember over a restart: the store's name in keys, the bytes of the day, what was sent of the unit begun.

One small JSON file, written anew (temporary name, fsync, rename) at each change. One that cannot be read is begun anew: the
unit is then sent from its beginning, under the same keys, and the day's budget is taken for used.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class State:
    """`store` is a random name of this device's store, `sent` the files that are there of the unit begun."""

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        self._path = path
        self.store = str(found["store"])
        self.sent: list[str] = [str(name) for name in found["sent"]]
        self._unit = str(found["unit"])
        self._day = str(found["day"])
        self._bytes = int(found["bytes"])

    @classmethod
    def open(cls, path: Path) -> State:
        """The state at `path`, a new one if there is none."""
        new = {"store": secrets.token_hex(4), "sent": [], "unit": "", "day": "", "bytes": 0}
        try:
            return cls(path, json.loads(path.read_bytes()))
        except FileNotFoundError:
            return cls(path, new)
        except (ValueError, KeyError, TypeError):
            return cls(path, {**new, "day": "unknown"})

    def begin(self, unit: str) -> None:
        """The unit that is sent now; what was sent of another one says nothing."""
        if unit != self._unit:
            self._unit, self.sent = unit, []
            self._save()

    def allows(self, size: int, bytes_per_day: int, at: float) -> bool:
        """Whether the day of `at` (epoch seconds) has room; an empty day has room for anything."""
        if self._day == "unknown":
            self._day, self._bytes = _day(at), bytes_per_day
        used = self.spent(at)
        return not used or used + size <= bytes_per_day

    def spent(self, at: float) -> int:
        """Bytes of the day of `at`."""
        return self._bytes if _day(at) == self._day else 0

    def spend(self, size: int, at: float) -> None:
        """Counts a file whose sending begins."""
        self._day, self._bytes = _day(at), size + self.spent(at)
        self._save()

    def done(self, name: str) -> None:
        """The file is there."""
        self.sent.append(name)
        self._save()

    def _save(self) -> None:
        found = {"store": self.store, "sent": self.sent, "unit": self._unit, "day": self._day, "bytes": self._bytes}
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(descriptor)
        new.replace(self._path)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
