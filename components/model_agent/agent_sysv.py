"""System V shared memory for reading: parts of segments that a client names by the id that shmget gave it (Linux, glibc, musl).

A segment must carry no write or execute bit for anyone while it is handed over (Edge Manager's rule: who wrote it has
closed it). What was asked for is copied out, so that nothing a client does to its segment later reaches a model.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any

_READ_ONLY = 0o10000  # SHM_RDONLY
_STATUS = 2  # IPC_STAT
_FORBIDDEN = 0o333
_ID_LIMIT = 2**31
_FAILED = ctypes.c_void_p(-1).value


class SegmentError(Exception):
    """The part of the segment cannot be read; the message is one readable line."""


class _Status(ctypes.Structure):
    """The beginning of struct shmid_ds of Linux (struct ipc64_perm, then shm_segsz); the rest is room."""

    _fields_ = (
        ("key", ctypes.c_int),
        ("owners", ctypes.c_uint * 4),
        ("mode", ctypes.c_ushort),
        ("_pad", ctypes.c_ushort),
        ("_sequence", ctypes.c_ushort),
        ("_pad_2", ctypes.c_ushort),
        ("_reserved", ctypes.c_ulong * 2),
        ("size", ctypes.c_size_t),
        ("_rest", ctypes.c_ubyte * 256),
    )


def read(segment: int, offset: int, size: int, limit: int) -> bytes:
    """`size` bytes from `offset`; 0 means up to the segment's end. More than `limit` bytes are refused."""
    if segment >= _ID_LIMIT:
        raise SegmentError(f"{segment} is no id of a shared memory segment; it is what shmget returned, not the key")
    libc = _libc()
    address = libc.shmat(segment, None, _READ_ONLY)
    if address == _FAILED:
        raise SegmentError(f"cannot attach the shared memory segment {segment}: {_reason()}")
    try:
        # Attached first: from here on its memory stays, whatever its owner does.
        total = _size(libc, segment)
        wanted = size or total - offset
        if wanted < 0 or offset + wanted > total:
            raise SegmentError(f"{wanted} bytes from {offset} are not in the segment {segment} of {total} bytes")
        if wanted > limit:
            raise SegmentError(f"{wanted} bytes of the segment {segment} are above the limit of {limit}")
        return ctypes.string_at(address + offset, wanted)
    finally:
        libc.shmdt(address)


def _size(libc: Any, segment: int) -> int:
    status = _Status()
    if libc.shmctl(segment, _STATUS, ctypes.byref(status)) != 0:
        raise SegmentError(f"cannot look at the shared memory segment {segment}: {_reason()}")
    if status.mode & _FORBIDDEN:
        raise SegmentError(
            f"the shared memory segment {segment} has mode {status.mode & 0o777:04o}: take every write and execute bit "
            "off before it is handed over"
        )
    return int(status.size)


def _reason() -> str:
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.EIDRM):
        return "there is none with this id"
    return os.strerror(number)


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        raise SegmentError(f"shared memory is read on Linux only, this is {sys.platform}")
    return _library


def _load() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.shmat.restype = ctypes.c_void_p
    library.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    library.shmdt.argtypes = (ctypes.c_void_p,)
    library.shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    return library


_library = _load()
