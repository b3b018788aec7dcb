"""Who may change the agent's store: one process at a time, one change at a time, and none while a successor takes over."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Literal


class FrozenError(OSError):
    """Nothing may change just now; ask again. An OSError, because to a service it is like a disk that takes nothing."""

    code = "BUSY"


class Changes:
    """A lock for `with`, which its thread may take again; raises FrozenError while frozen."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._frozen = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._frozen:
            self._lock.release()
            raise FrozenError("another process of the model agent takes over; try again")

    def __exit__(self, *_: object) -> Literal[False]:
        self._lock.release()
        return False

    def freeze(self, wait_s: float) -> bool:
        """No further change; False if one is still under way after `wait_s`."""
        if not self._lock.acquire(timeout=wait_s):
            return False
        self._frozen = True
        self._lock.release()
        return True

    def thaw(self) -> None:
        """Changes are possible again."""
        self._frozen = False


def held(path: Path, wait_s: float) -> int:
    """The descriptor of the lock file, once no other process holds it; raises TimeoutError after `wait_s`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                raise TimeoutError(f"another model agent holds {path}") from None
        threading.Event().wait(0.05)
