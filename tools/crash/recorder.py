"""Stands in for the functions of `os` that make writes durable: counts them, records them, kills after one of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any


class Recorder:
    """Sees everything written below `root` through `os` (host/files.py and host/journal.py write in no other way)."""

    def __init__(self, root: Path, *, kill_after: int = 0, log: Path | None = None) -> None:
        self._root = str(root)
        self._kill_after = kill_after
        self._paths: dict[int, str] = {}
        self._log = log.open("w") if log is not None else None
        self.synced = 0

    def install(self) -> None:
        self._open, self._write, self._fsync = os.open, os.write, os.fsync
        self._replace, self._ftruncate = os.replace, os.ftruncate
        for name in ("open", "write", "fsync", "replace", "ftruncate"):
            setattr(os, name, getattr(self, name))

    def open(self, path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        descriptor = self._open(path, flags, *arguments, **named)
        self._paths[descriptor] = str(Path(path).absolute())
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._note("open", descriptor, truncate=bool(flags & os.O_TRUNC))
        return descriptor

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
        if names[1].startswith(self._root) and self._log is not None:
            self._say({"op": "rename", "path": names[0], "to": names[1]})

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        if not self._paths.get(descriptor, "").startswith(self._root):
            return
        self._note("fsync", descriptor)
        self.synced += 1
        if self.synced == self._kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, operation: str, descriptor: int, **fields: Any) -> None:
        path = self._paths.get(descriptor, "")
        if self._log is not None and path.startswith(self._root):
            self._say({"op": operation, "path": path, **fields})

    def _say(self, entry: dict[str, Any]) -> None:
        assert self._log is not None
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()
