"""Measures the memory of this process and of a model's own one, and gives back to the system what was freed.

After a model is let go, its pages stay with the process: glibc keeps them for later (48 to 236 MB for one detector, spec
ml.md 9) until `malloc_trim`. That leaves out the end of each heap that is not the main one, which glibc lets grow with what
was freed; so its limits are fixed first (mallopt(3)). Where the C library has none of this (musl), nothing can be given
back, which is told once.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

_KIB = 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, malloc.h
# Below it memory is used again without the system, which requests of a few megabytes need; above, it goes back when freed.
_KEPT_BYTES = 8 * 1024 * 1024


def own_bytes() -> int:
    """Anonymous memory of this process in RAM: what models allocate; no files, no memory that is shared with clients."""
    return _field("/proc/self/status", "RssAnon")


def resident_bytes() -> int:
    """All memory of this process in RAM."""
    return _field("/proc/self/status", "VmRSS")


def process_bytes(pid: int) -> int:
    """What another process of ours takes, shared pages counted in parts; 0 when it is gone."""
    try:
        return _field(f"/proc/{pid}/smaps_rollup", "Pss")
    except OSError:
        return 0


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h (glibc 2.33): bytes in use are those of all heaps and those mapped one by one."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


class Allocator:
    """The C library's; `trim` costs milliseconds."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        found = getattr(library, "malloc_trim", None)
        if found is not None:
            for limit in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
                library.mallopt(limit, _KEPT_BYTES)
        self._trim = found
        self._info = getattr(library, "mallinfo2", None)
        if self._info is not None:
            self._info.restype = _Mallinfo
        self.told = "" if found is not None else "this C library cannot give memory back (no malloc_trim)"

    def in_use_bytes(self) -> int:
        """What was allocated and not freed, wherever it lies; 0 where the C library does not tell."""
        if self._info is None:
            return 0
        info = self._info()
        return int(info.uordblks + info.hblkhd)

    def trim(self, collect: bool = False) -> None:
        """Gives free memory back to the system.

        `collect` also finds what only a cycle holds, as an error does with the frames it went through. It stops every
        thread for 10 ms or more, so it is for what went wrong, not for an exchange under load.
        """
        if collect:
            gc.collect()
        if self._trim is not None:
            self._trim(0)


class Gauge:
    """What this process takes more than when it was made."""

    def __init__(self, allocator: Allocator) -> None:
        self._allocator = allocator
        self._before, self._in_use = own_bytes(), allocator.in_use_bytes()

    def taken(self) -> int:
        """Bytes; others that allocate or free at the same time are in it.

        Pages may stay that nobody uses, allocated memory may never be touched: the smaller is nearer to the truth.
        """
        grown, allocated = own_bytes() - self._before, self._allocator.in_use_bytes() - self._in_use
        return min(grown, allocated) if self._in_use else grown


def _field(path: str, name: str) -> int:
    """A figure of a file in /proc, in bytes; 0 when this kernel does not tell it."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return int(found[1]) * _KIB if found else 0
