"""Small JSON files that are either the old or the new content after any crash; one that cannot be read is put aside."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_LEAST_RESERVE_BYTES = 4096


class FullError(OSError):
    """The disk takes no more; the message says what to do."""

    code = "RESOURCE_EXHAUSTED"


@contextlib.contextmanager
def room(what: str, folder: Path) -> Iterator[None]:
    """For writes below `folder`: raises FullError where the disk, or a quota, has no room for `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize / 1e6
        raise FullError(
            f"cannot write {what}: {error.strerror}; the disk of {folder} has {free:.1f} MB left, make room there and try again"
        ) from error


def write(path: Path, content: Any, *, reserve_bytes: int = 0) -> None:
    """Replaces the file: write new, fsync, rename, fsync the folder. Raises OSError, FullError.

    The space for the next time, at least `reserve_bytes`, is taken beforehand, so that a full disk takes that, too.
    """
    data, new = json.dumps(content, indent=1).encode(), _new(path)
    try:
        with room(path.name, path.parent):
            write_file(new, data)
        new.replace(path)
        sync(path.parent)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    finally:
        if reserve_bytes:
            reserve(path, max(reserve_bytes, 2 * len(data)))


def reserve(path: Path, size_bytes: int) -> None:
    """Takes the space for the next content of the file, less where there is less."""
    with contextlib.suppress(OSError):
        descriptor = os.open(_new(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while size_bytes >= _LEAST_RESERVE_BYTES and not _allocated(descriptor, size_bytes):
                size_bytes //= 2
        finally:
            os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that nobody reads yet, durably, into the space that it has already. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        file.truncate()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Any:
    """The content; None if there is no such file. Raises ValueError for one that is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def put_aside(path: Path, why: object) -> str:
    """Moves a damaged file out of the way, never overwrites it silently; returns a line for the log."""
    aside = path.with_name(f"{path.name}.unreadable")
    path.replace(aside)
    return f"{path.name} could not be read ({why}); kept as {aside.name}, starting empty"


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _allocated(descriptor: int, size_bytes: int) -> bool:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError:
        return False
    return True
