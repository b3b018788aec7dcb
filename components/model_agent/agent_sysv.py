"""System V shared memory for reading: parts of segments that a client names by the id that shmget gave it (Linux, glibc, musl).

A segment must carry no write or execute bit for anyone while it is handed over (Edge Manager's rule: who wrote it has
closed it). What was asked for is copied out, so that nothing a client does to its segment later reaches a model.

Segments stay attached between requests: the page tables of 1 MB take 0.4 ms to make, its bytes 0.03 ms to copy. Rights
and size are looked at for every request. One whose owner removed it is let go within SWEEP_S, an unused one after UNUSED_S.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import agent_shared

KEPT = 8  # attached segments
KEPT_BYTES = 256 * 1024 * 1024
SWEEP_S = 1.0
UNUSED_S = 60.0
_READ_ONLY = 0o10000  # SHM_RDONLY
_STATUS = 2  # IPC_STAT
_REMOVED = 0o1000  # SHM_DEST in the mode: it goes when the last one lets go
_FORBIDDEN = 0o333
_ID_LIMIT = 2**31
_FAILED = ctypes.c_void_p(-1).value


class SegmentError(Exception):
    """The part of the segment cannot be read; the message is one readable line."""


class _Status(ctypes.Structure):
    """The beginning of struct shmid_ds of Linux (struct ipc64_perm, then shm_segsz, ... shm_nattch); the rest is room."""

    _fields_ = (
        ("key", ctypes.c_int),
        ("owners", ctypes.c_uint * 4),
        ("mode", ctypes.c_ushort),
        ("_pad", ctypes.c_ushort),
        ("_sequence", ctypes.c_ushort),
        ("_pad_2", ctypes.c_ushort),
        ("_reserved", ctypes.c_ulong * 2),
        ("size", ctypes.c_size_t),
        ("_times", ctypes.c_ulong * (3 if ctypes.sizeof(ctypes.c_ulong) == 8 else 6)),
        ("_processes", ctypes.c_int * 2),
        ("attached", ctypes.c_ulong),
        ("_rest", ctypes.c_ubyte * 256),
    )


class _Attached:
    """A segment in this process's memory; `users` copy from it now."""

    def __init__(self, segment: int, address: int) -> None:
        self.segment = segment
        self.address = address
        self.users = 0
        self.size = 0
        self.used_at = 0.0


class Segments:
    """All segments that clients named; for many threads."""

    def __init__(self, unused_s: float = UNUSED_S) -> None:
        self._unused_s = unused_s
        self._kept: dict[int, _Attached] = {}
        self._lock = threading.Lock()
        self._sweeping = False
        self._buffers = agent_shared.Buffers()

    def read(self, segment: int, offset: int, size: int, limit: int) -> agent_shared.Array:
        """`size` bytes from `offset`; 0 means up to the segment's end. More than `limit` bytes are refused."""
        if segment >= _ID_LIMIT:
            raise SegmentError(
                f"{segment} is no id of a shared memory segment; it is what shmget returned, not the key"
            )
        with self._attached(segment) as attached:
            wanted = size or attached.size - offset
            if wanted < 0 or offset + wanted > attached.size:
                raise SegmentError(
                    f"{wanted} bytes from {offset} are not in the segment {segment} of {attached.size} bytes"
                )
            if wanted > limit:
                raise SegmentError(f"{wanted} bytes of the segment {segment} are above the limit of {limit}")
            data = self._buffers.take(wanted)
            ctypes.memmove(data.ctypes.data, attached.address + offset, wanted)
            return data

    def attached(self) -> list[int]:
        """The ids of the segments that stay attached."""
        with self._lock:
            return list(self._kept)

    @contextmanager
    def _attached(self, segment: int) -> Iterator[_Attached]:
        with self._lock:
            found = self._kept.pop(segment, None) or _attach(segment)
            found.users += 1
            self._kept[segment] = found  # the last one used is the last one in order
        removed = True
        try:
            # Attached first: from here on its memory stays, whatever its owner does.
            found.size, removed = _look(segment)
            yield found
        finally:
            with self._lock:
                found.users -= 1
                found.used_at = time.monotonic()
                if removed and self._kept.get(segment) is found:
                    del self._kept[segment]
                if self._kept.get(segment) is not found and not found.users:
                    _library.shmdt(found.address)
                self._bound()

    def _bound(self) -> None:
        """Lets the longest unused ones go, and sees to it that somebody sweeps; under the lock."""
        idle = [each for each in self._kept.values() if not each.users]
        while idle and (len(self._kept) > KEPT or sum(each.size for each in self._kept.values()) > KEPT_BYTES):
            self._let_go(idle.pop(0))
        if self._kept and not self._sweeping:
            self._sweeping = True
            threading.Thread(target=self._sweep, name="segments", daemon=True).start()

    def _let_go(self, one: _Attached) -> None:
        del self._kept[one.segment]
        _library.shmdt(one.address)

    def _sweep(self) -> None:
        while True:
            threading.Event().wait(SWEEP_S)
            with self._lock:
                for each in [each for each in self._kept.values() if not each.users]:
                    if time.monotonic() - each.used_at > self._unused_s or _is_removed(each.segment):
                        self._let_go(each)
                if not self._kept:
                    self._sweeping = False
                    return


def _attach(segment: int) -> _Attached:
    if not sys.platform.startswith("linux"):
        raise SegmentError(f"shared memory is read on Linux only, this is {sys.platform}")
    address = _library.shmat(segment, None, _READ_ONLY)
    if address == _FAILED:
        raise SegmentError(f"cannot attach the shared memory segment {segment}: {_reason()}")
    return _Attached(segment, address)


def _look(segment: int) -> tuple[int, bool]:
    """Its size and whether its owner removed it; raises SegmentError if it is not ours to read now."""
    status = _Status()
    if _library.shmctl(segment, _STATUS, ctypes.byref(status)) != 0:
        raise SegmentError(f"cannot look at the shared memory segment {segment}: {_reason()}")
    if status.mode & _FORBIDDEN:
        raise SegmentError(
            f"the shared memory segment {segment} has mode {status.mode & 0o777:04o}: take every write and execute bit "
            "off before it is handed over"
        )
    removed = bool(status.mode & _REMOVED)
    if removed and status.attached <= 1:  # only we still have it
        raise SegmentError(f"cannot attach the shared memory segment {segment}: there is none with this id")
    return int(status.size), removed


def _is_removed(segment: int) -> bool:
    status = _Status()
    return _library.shmctl(segment, _STATUS, ctypes.byref(status)) != 0 or bool(status.mode & _REMOVED)


def _reason() -> str:
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.EIDRM):
        return "there is none with this id"
    return os.strerror(number)


def _load() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.shmat.restype = ctypes.c_void_p
    library.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    library.shmdt.argtypes = (ctypes.c_void_p,)
    library.shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    return library


_library = _load()
SEGMENTS = Segments()  # one, because what is attached is the process's
