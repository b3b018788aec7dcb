"""One nucleus in one root: two would run every component twice."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nucleus.core import errors


def take(root: Path) -> int:
    """Takes the lock of a root; it ends with the descriptor that is returned, or the process, however that ends."""
    descriptor = os.open(root / "nucleus.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise errors.NucleusError("IO_ERROR", f"cannot start: another nucleus is running in {root}") from None
    return descriptor
