"""One change of the agent's store at a time, and none while a successor takes over: what it read must stay as it is."""

from __future__ import annotations

import threading
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
