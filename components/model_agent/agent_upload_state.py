"""What uploads remember over a restart: the store's name in keys, the bytes of the day, what was sent of the unit begun.

One small JSON file for each store, written anew (temporary name, fsync, rename) at each change. One that cannot be read is begun
anew: the unit is then sent from its beginning, and the day's budget is taken for used.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class State:
    """`store` is a random name of this device's store, `sent` the files that are there of the unit begun."""

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        self.path = path
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

    def allows(self, size: int, bytes_per_day: int, at: float, elsewhere: int = 0) -> bool:
        """Whether the day of `at` (epoch seconds) has room beside `elsewhere`; an empty day has room for anything."""
        if self._day == "unknown":
            self._day, self._bytes = _day(at), bytes_per_day
        used = self.spent(at) + elsewhere
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
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(descriptor)
        new.replace(self.path)


class Budget:
    """Bytes that the stores of one agent may send together in a day (UTC); for many threads."""

    def __init__(self, bytes_per_day: int) -> None:
        self._bytes_per_day = bytes_per_day
        self._lock = threading.Lock()
        self._states: dict[Path, State] = {}

    def join(self, state: State) -> None:
        """What this state's store has sent counts, in place of what was read of it before."""
        with self._lock:
            self._states[state.path] = state

    def allows(self, state: State, size: int, at: float) -> bool:
        """Whether a file of so many bytes may be sent on the day of `at`."""
        with self._lock:
            return self._allows(state, size, at)

    def take(self, state: State, size: int, at: float) -> bool:
        """Counts a file whose sending begins, if it is still allowed."""
        with self._lock:
            allowed = self._allows(state, size, at)
            if allowed:
                state.spend(size, at)
            return allowed

    def _allows(self, state: State, size: int, at: float) -> bool:
        elsewhere = sum(other.spent(at) for path, other in self._states.items() if path != state.path)
        return state.allows(size, self._bytes_per_day, at, elsewhere)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
