"""Measures the memory of this process and of a model's own one, and gives back to the system what was freed.

After a model is let go, its pages stay with the process: glibc keeps them for later (48 to 236 MB for one detector, spec
ml.md 9) until `malloc_trim`. Where the C library has none (musl), nothing can be given back, which is told once.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

_KIB = 1024


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


class Allocator:
    """The C library's; `trim` costs milliseconds."""

    def __init__(self) -> None:
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._trim = found
        self.told = "" if found is not None else "this C library cannot give memory back (no malloc_trim)"

    def trim(self, collect: bool = False) -> None:
        """Gives free memory back to the system.

        `collect` also finds what only a cycle holds, as an error does with the frames it went through. It stops every
        thread for 10 ms or more, so it is for what went wrong, not for an exchange under load.
        """
        if collect:
            gc.collect()
        if self._trim is not None:
            self._trim(0)


def _field(path: str, name: str) -> int:
    """A figure of a file in /proc, in bytes; 0 when this kernel does not tell it."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return int(found[1]) * _KIB if found else 0
