"""A bounded way from the serving threads to one that may take its time: never waits, and counts what found no room."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np

ITEMS_LIMIT = 256
BYTES_LIMIT = 32 * 1024 * 1024
Item = TypeVar("Item")


class Intake(Generic[Item]):
    """`put` costs about a microsecond; `take` waits. When full, the new item is dropped and counted in `dropped`."""

    def __init__(self, items_limit: int = ITEMS_LIMIT, bytes_limit: int = BYTES_LIMIT) -> None:
        self.dropped = 0
        self._items_limit = items_limit
        self._bytes_limit = bytes_limit
        self._changed = threading.Condition()
        self._items: collections.deque[tuple[Item, int]] = collections.deque()
        self._bytes = 0
        self._closed = False

    def put(self, item: Item, size: int) -> bool:
        """Whether there was room for `size` bytes more; one item always fits an empty intake."""
        with self._changed:
            full = len(self._items) >= self._items_limit or (self._items and self._bytes + size > self._bytes_limit)
            if full or self._closed:
                self.dropped += 1
                return False
            self._items.append((item, size))
            self._bytes += size
            if len(self._items) == 1:
                self._changed.notify()
            return True

    def take(self, within_s: float) -> Item | None:
        """The oldest item; None when none came in time, or when it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, within_s)
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            return item

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Items to be taken."""
        return len(self._items)

    def closes_within(self, seconds: float) -> bool:
        """Waits for `close`; whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def close(self) -> None:
        """Takes nothing more; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def size_of(*tensors: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for each in tensors for array in each.values())


def kept(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, or a copy of one whose memory somebody else may write to once the request is answered."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return array if isinstance(owner, bytes | np.ndarray) else array.copy()
