"""The memory that a client shares with the agent over the native door: mapped once, read by copying, written with answers.

A client makes a memfd, seals it against shrinking and hands its descriptor over with `share` (SCM_RIGHTS). Sealed, because
a mapped file that its owner cuts short ends whoever reads it (SIGBUS); only a memfd can be sealed. What lies in it may
change at any moment, so a model never computes on it: inputs are copied first, and a client that changes them meanwhile
gets the answer to some mixture of its own. The copies are kept for the next request, within bounds, because memory that
was just used is quicker than any other.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
from typing import Any

import agent_frames
import numpy as np

Array = np.ndarray[Any, Any]
MEMORY_LIMIT_BYTES = 2 * agent_frames.BODY_LIMIT_BYTES  # one request and its answer
COPIES_LIMIT_BYTES = 32 * 1024 * 1024  # kept between requests, of all connections together
BUFFERS_LIMIT, BUFFERS_LIMIT_BYTES = 8, 16 * 1024 * 1024
_ALONE = 2  # references to an array that only its holder has: the holder's, and the argument of getrefcount


class SharedError(ValueError):
    """The memory cannot be used; the message is one readable line."""


class Copies:
    """How many bytes of copies may be kept between requests; for many threads."""

    def __init__(self, limit_bytes: int = COPIES_LIMIT_BYTES) -> None:
        self._left = limit_bytes
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether a copy of this size may be kept; who gets True gives it back."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """It is kept no more."""
        with self._lock:
            self._left += size


class Buffers:
    """Memory for copies that is used again as soon as nothing refers to them any more; for many threads."""

    def __init__(self, limit_bytes: int = BUFFERS_LIMIT_BYTES, limit: int = BUFFERS_LIMIT) -> None:
        self._limit_bytes = limit_bytes
        self._limit = limit
        self._kept: list[Array] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Array:
        """So many bytes; the caller's as long as it refers to them."""
        with self._lock:
            for index in range(len(self._kept) - 1, -1, -1):  # the last one used first: it is still in the caches
                if self._kept[index].nbytes >= size and sys.getrefcount(self._kept[index]) == _ALONE:
                    self._kept.append(self._kept.pop(index))
                    return self._kept[-1][:size]
            made = np.empty(size, np.uint8)
            self._kept.append(made)
            while len(self._kept) > self._limit or sum(each.nbytes for each in self._kept) > self._limit_bytes:
                del self._kept[0]
            return made[:]


class Input:
    """One input in shared memory, at `view`."""

    def __init__(self, name: str, view: Array, copies: Copies) -> None:
        self.name = name
        self._view = view
        self._copies = copies
        self._kept = copies.take(view.nbytes)
        self._copy: Array | None = None

    def copied(self) -> Array:
        """An array that nobody else writes to, as long as anybody holds it."""
        copy = self._copy if self._kept else None
        self._copy = None
        # An observer may have kept the last one; a view of it refers to it, too.
        if copy is None or sys.getrefcount(copy) > _ALONE:
            copy = np.empty(self._view.shape, self._view.dtype)
        if copy.dtype == np.bool_:  # any other byte than 0 is true, and numpy must not see one above 1
            np.not_equal(self._view.view(np.uint8), 0, out=copy)
        else:
            np.copyto(copy, self._view)
        self._copy = copy
        return copy

    def forget(self) -> None:
        """The input will not be asked for again."""
        if self._kept:
            self._copies.give(self._view.nbytes)
            self._kept = False


def opened(descriptor: int) -> Array:
    """The bytes of a client's memory, mapped as long as anything refers to them; raises SharedError."""
    try:
        # Seals first: what is sealed cannot become smaller after we looked at its size.
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        size, block = os.fstat(descriptor).st_size, os.fstatvfs(descriptor).f_bsize
    except OSError as error:
        raise SharedError(f"cannot share this file: {error.strerror}; only a memfd can be sealed") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise SharedError("cannot share this memory: it is not sealed against shrinking (F_SEAL_SHRINK)")
    if block != mmap.PAGESIZE:
        raise SharedError("cannot share this memory: it has huge pages, which may be missing when they are read")
    if not 0 < size <= MEMORY_LIMIT_BYTES:
        raise SharedError(f"cannot share {size} bytes: more than 0 and at most {MEMORY_LIMIT_BYTES} may be shared")
    try:
        mapped = mmap.mmap(descriptor, size)
    except OSError as error:
        raise SharedError(f"cannot map the shared memory: {error.strerror}") from error
    return np.frombuffer(mapped, np.uint8)
