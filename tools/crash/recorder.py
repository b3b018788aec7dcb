"""Stands in for the functions of `os` that make writes durable: counts them, records them, kills after one of them.

Stands alone: its text is also put before the program of releases that are killed in the middle of an own update.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any


class Recorder:
    """Sees everything written below `root` through `os` (host/files.py, journal.py, launch.py write in no other way).

    `count` is a file with `<n> <counted so far>`: then the count goes on over processes and programs, and nothing is counted
    without the file. `log` is appended to.
    """

    def __init__(self, root: Path, *, kill_after: int = 0, count: Path | None = None, log: Path | None = None) -> None:
        self._root = str(root)
        self._kill_after = kill_after
        self._count = count
        self._paths: dict[int, str] = {}
        self._log = log.open("a") if log is not None else None
        self._one = threading.Lock()
        self.synced = 0

    def install(self) -> None:
        self._open, self._write, self._fsync = os.open, os.write, os.fsync
        self._replace, self._ftruncate, self._sync = os.replace, os.ftruncate, os.sync
        self._symlink, self._unlink, self._close = os.symlink, os.unlink, os.close
        for name in ("open", "close", "write", "fsync", "replace", "ftruncate", "sync", "symlink", "unlink"):
            setattr(os, name, getattr(self, name))

    def open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        descriptor = self._open(path, flags, *arguments, **named)
        self._paths[descriptor] = str(Path(path).absolute())
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._note("open", descriptor, truncate=bool(flags & os.O_TRUNC))
        return descriptor

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)  # the number may be a socket's next
        self._close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        written = self._write(descriptor, data)
        self._note("write", descriptor, data=bytes(data)[:written].hex())
        return written

    def ftruncate(self, descriptor: int, length: int) -> None:
        self._ftruncate(descriptor, length)
        self._note("truncate", descriptor, length=length)

    def replace(self, old: Any, new: Any) -> None:
        self._replace(old, new)
        names = [str(Path(one).absolute()) for one in (old, new)]
        if names[1].startswith(self._root):
            self._say({"op": "rename", "path": names[0], "to": names[1]})

    def symlink(self, target: Any, path: Any, *more: Any, **named: Any) -> None:
        self._symlink(target, path, *more, **named)
        self._name("symlink", path, target=str(target))

    def unlink(self, path: Any, **named: Any) -> None:
        self._unlink(path, **named)
        self._name("unlink", path)

    def sync(self) -> None:
        self._sync()
        self._say({"op": "sync", "path": self._root})

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        if not self._paths.get(descriptor, "").startswith(self._root):
            return
        self._note("fsync", descriptor)
        if self._is_the_one():
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_the_one(self) -> bool:
        with self._one:
            self.synced += 1
            if self._count is None:
                return self.synced == self._kill_after
            try:
                wanted, counted = map(int, self._count.read_text().split())
            except (OSError, ValueError):
                return False
            with self._count.open("w") as file:
                file.write(f"{wanted} {counted + 1}")
            return counted + 1 == wanted

    def _name(self, operation: str, path: Any, **fields: Any) -> None:
        if isinstance(path, str | Path) and str(Path(path).absolute()).startswith(self._root):
            self._say({"op": operation, "path": str(Path(path).absolute()), **fields})

    def _note(self, operation: str, descriptor: int, **fields: Any) -> None:
        path = self._paths.get(descriptor, "")
        if path.startswith(self._root):
            self._say({"op": operation, "path": path, **fields})

    def _say(self, entry: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()
