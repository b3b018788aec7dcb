"""Copies of files and folders that can be brought back: by reflink where the file system can, else bounded copies.

Never hard links: a program that writes into its file would write into the copy as well. A snapshot is a folder with
`manifest.json` and below `data/` the paths under their numbers; it exists as a whole or not at all. Links are copied as
links, sockets and pipes are left out; owners, permissions and times are kept.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from nucleus.core import errors
from nucleus.host import files

FICLONE = 0x40049409  # linux/fs.h
LIMIT_ENTRIES = 100_000
SPARE_BYTES = 20 * 1024 * 1024  # stays free, as before a download (spec/nucleus.md 3.4)
_CHUNK_BYTES = 1 << 20


class TooMuch(Exception):  # noqa: N818  the word says it
    """Nothing was copied; the text says which limit would have been passed."""


class Manifest(Struct, frozen=True):
    """What a snapshot holds; `present[n]` tells whether `paths[n]` existed. `left` is why nothing was taken, or ""."""

    paths: tuple[str, ...]
    present: tuple[bool, ...]
    left: str = ""


def take(root: Path, paths: Sequence[str], place: Path, *, max_bytes: int) -> int:
    """Copies paths below `root` to the new folder `place`; returns the bytes they hold.

    Raises TooMuch (more than `max_bytes`, too many files, too little space), NucleusError for a path that leads out of
    `root`, and OSError; then there is no `place`.
    """
    sources = [files.join(root, path) for path in paths]
    size = _measure(sources, max_bytes)
    fresh = _fresh(place)
    try:
        for number, source in enumerate(sources):
            if os.path.lexists(source):
                _copy(source, fresh / "data" / str(number))
        present = tuple(os.path.lexists(fresh / "data" / str(number)) for number in range(len(sources)))
        _finish(fresh, place, Manifest(tuple(paths), present))
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return size


def why_not(root: Path, paths: Sequence[str], *, max_bytes: int) -> str:
    """Why `take` would refuse now, "" if it would not; copies nothing."""
    try:
        _measure([files.join(root, path) for path in paths], max_bytes)
    except (TooMuch, OSError, errors.NucleusError) as error:
        return str(error)
    return ""


def leave(place: Path, why: str) -> None:
    """Notes that there is no copy, so that nobody takes a later state for the one of before. Raises OSError."""
    _finish(_fresh(place), place, Manifest((), (), left=why))


def restore(place: Path, root: Path) -> Manifest:
    """Brings every path back as it was; what did not exist goes. Doing it again changes nothing.

    Raises OSError, NucleusError and ValueError (a damaged manifest); then it can be tried again.
    """
    found = msgspec.json.decode((place / "manifest.json").read_bytes(), type=Manifest)
    for number, (path, present) in enumerate(zip(found.paths, found.present, strict=True)):
        target = files.join(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = target.with_name(f".{target.name}.restoring")
        _remove(stage)
        if present:
            _copy(place / "data" / str(number), stage)
        _remove(target)
        if present:
            stage.rename(target)
        files.sync_directory(target.parent)
    return found


def _measure(sources: Sequence[Path], max_bytes: int) -> int:
    size = 0
    for count, entry in enumerate(entry for source in sources for entry in _entries(source)):
        found = entry.lstat()
        size += found.st_size if stat.S_ISREG(found.st_mode) else 0
        if size > max_bytes:
            raise TooMuch(f"its files hold more than maxBytes {max_bytes}")
        if count >= LIMIT_ENTRIES:
            raise TooMuch(f"it has more than {LIMIT_ENTRIES} files")
    free = files.free_bytes(sources[0]) if sources else 0
    if size + SPARE_BYTES > free:
        raise TooMuch(f"its files hold {size} bytes and {free} are free ({SPARE_BYTES} must stay free)")
    return size


def _entries(source: Path) -> Iterator[Path]:
    if not os.path.lexists(source):
        return
    yield source
    if source.is_dir() and not source.is_symlink():
        for folder, directories, names in os.walk(source):
            yield from (Path(folder) / name for name in (*directories, *names))


def _fresh(place: Path) -> Path:
    fresh = place.with_name(f".{place.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    files.make_directory(fresh / "data", 0o700)
    return fresh


def _finish(fresh: Path, place: Path, manifest: Manifest) -> None:
    files.write_durably(fresh / "manifest.json", msgspec.json.encode(manifest))
    files.sync_directory(fresh / "data")
    fresh.rename(place)
    files.sync_directory(place.parent)


def _copy(source: Path, target: Path) -> None:
    """One file, link or folder with all it holds."""
    found = source.lstat()
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(found.st_mode):
        target.mkdir(0o700)
        for child in source.iterdir():
            _copy(child, target / child.name)
        files.sync_directory(target)
    elif stat.S_ISREG(found.st_mode):
        _copy_file(source, target)
    else:
        return
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        target.chmod(stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _copy_file(source: Path, target: Path) -> None:
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with _opened(source, os.O_RDONLY) as reading, _opened(target, new) as writing:
        if not _clone(reading, writing):
            while chunk := os.read(reading, _CHUNK_BYTES):
                files.write_all(writing, chunk)
        os.fsync(writing)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _clone(reading: int, writing: int) -> bool:
    """Shares the blocks of a file until one side writes; False where the file system cannot."""
    try:
        fcntl.ioctl(writing, FICLONE, reading)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
