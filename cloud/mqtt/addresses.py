"""Paths of Unix sockets that fit into the kernel's 107 bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIMIT_BYTES = 107  # sun_path of 108 with its zero (unix(7))


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name of the path that can be bound or connected to inside the block: through /proc if it is too long itself."""
    if len(os.fsencode(path)) <= _LIMIT_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
