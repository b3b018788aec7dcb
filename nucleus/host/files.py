"""Durable writes, checked paths and unpacking: the one door to the disk for everything that must survive a crash.

A durable write is: write a new file beside the old one, fsync, rename, fsync the directory. After a crash a path holds the
old or the new bytes, never a mixture; a left-over `.<name>.new` is overwritten by the next write.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from nucleus.core import errors

LIMIT_ENTRIES = 100_000  # of one archive: bounds the inodes it may take
_CHUNK_BYTES = 1 << 20
# What zipfile raises for damaged, encrypted or unknown content.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Makes `path` hold exactly `data` with these permission bits; its directory must exist.

    On error the old content is untouched. Raises NucleusError IO_WRITE_ERROR or DISK_SPACE_CRITICAL.
    """
    new = path.with_name(f".{path.name}.new")
    with writing(path):
        try:
            _write_new(new, data, mode)
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes; the system may take them in parts."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a NucleusError that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = "DISK_SPACE_CRITICAL" if full else "IO_WRITE_ERROR"
        raise errors.NucleusError(code, f"cannot write {path}: {error.strerror or error}") from error


def join(root: Path, *parts: str) -> Path:
    """The path below `root`, checked: it does not leave it, not even through a symbolic link that exists.

    Parts may hold several names (`a/b`). Raises NucleusError IO_ERROR.
    """
    path = root
    for part in parts:
        names = PurePosixPath(part)
        if not part or names.is_absolute() or ".." in names.parts or "\0" in part:
            raise _escapes(root, part)
        path = path / names
    if path != root and not path.resolve().is_relative_to(root.resolve()):
        raise _escapes(root, "/".join(parts))
    return path


def _escapes(root: Path, part: str) -> errors.NucleusError:
    return errors.NucleusError("IO_ERROR", f"cannot use path {part[:200]!r} in {root}: it is not a place inside")


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Makes a directory, and its parents, with exactly these permission bits; existing ones get the bits, too."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write on the file system of `path` or of its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize


def unzip(archive: Path, directory: Path, *, limit_bytes: int) -> None:
    """Unpacks a ZIP archive so that `directory` holds exactly its content.

    It appears as a whole or not at all: on error what was there before is untouched. Files get 0644, or 0755 if they
    are executable in the archive; directories 0755. Refused: names that lead outside, links and devices, encrypted
    entries, two entries of one name, more than `limit_bytes` after unpacking.
    Raises NucleusError IO_UNZIP_ERROR naming the entry, IO_READ_ERROR, IO_WRITE_ERROR or DISK_SPACE_CRITICAL.
    """
    new = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        with writing(directory):
            make_directory(new, 0o755)
            _extract(archive, new, limit_bytes)
            shutil.rmtree(directory, ignore_errors=True)
            new.replace(directory)
            sync_directory(directory.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _extract(archive: Path, directory: Path, limit_bytes: int) -> None:
    with _opened(archive) as opened:
        entries = opened.infolist()
        if len(entries) > LIMIT_ENTRIES:
            raise _not_unpacked(archive, "", f"it has more than {LIMIT_ENTRIES} entries")
        left = limit_bytes
        for entry in entries:
            left -= _extract_entry(opened, entry, directory, archive, left)


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except _UNREADABLE as error:
        raise _not_unpacked(archive, "", f"it is not a whole ZIP archive ({error})") from error
    except OSError as error:
        raise errors.NucleusError("IO_READ_ERROR", f"cannot read {archive}: {error.strerror or error}") from error


def _extract_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, root: Path, archive: Path, left: int) -> int:
    """Returns the bytes written; `left` is how many may be."""
    why = _refusal(entry)
    if why:
        raise _not_unpacked(archive, entry.orig_filename, why)
    try:
        target = join(root, entry.filename)
        _make_parents(root, target if entry.is_dir() else target.parent)
        return 0 if entry.is_dir() else _copy(opened, entry, target, left)
    except (FileExistsError, NotADirectoryError) as error:
        raise _not_unpacked(archive, entry.filename, "another entry has the same name") from error
    except _TooLargeError as error:
        raise _not_unpacked(archive, entry.filename, "the archive is larger than allowed when unpacked") from error
    except _UNREADABLE as error:
        raise _not_unpacked(archive, entry.filename, f"its content cannot be read ({error})") from error


class _TooLargeError(Exception):
    """Raised when the bytes of an archive pass its limit, whatever its headers promise."""


def _refusal(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not unpacked whatever it holds; empty if it may be."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    names = PurePosixPath(name)
    if not names.parts or names.is_absolute() or ".." in names.parts:
        return "it would lie outside of the folder"
    if "\\" in name or not name.isprintable():
        return "its name has characters that are not allowed"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "links and devices are not allowed"
    return "it is encrypted" if entry.flag_bits & 1 else ""


def _make_parents(root: Path, directory: Path) -> None:
    """The directory with its parents up to `root`, each readable by everybody whatever the umask."""
    missing = [each for each in (directory, *directory.parents) if each.is_relative_to(root) and not each.is_dir()]
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def _copy(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    written = 0
    with opened.open(entry) as source, target.open("xb") as file:
        os.fchmod(file.fileno(), 0o755 if entry.external_attr >> 16 & 0o100 else 0o644)
        while chunk := source.read(min(_CHUNK_BYTES, left - written + 1)):
            written += len(chunk)
            if written > left:
                raise _TooLargeError
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return written


def _not_unpacked(archive: Path, entry: str, why: str) -> errors.NucleusError:
    which = f", entry {entry[:200]!r}" if entry else ""
    return errors.NucleusError("IO_UNZIP_ERROR", f"cannot unpack {archive}{which}: {why}")
