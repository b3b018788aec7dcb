"""The file of a bundle: a model with its manifest, signature, certificate and runtime settings, for an OTA that is not ours.

A ZIP whose entries are sorted, stored as they are, without times and with one mode, so that the same content is the same bytes
on every machine. Entries are plain file names:

    bundle.json             {"format": 1, "component", "version"}
    model.json              and the model's file that it names
    settings.json           runtime settings of the model, if any (agent_settings.py)
    certificate.json        accuracy certificate, if any
    marram.manifest.json    and marram.manifest.sig: the signature over all of them but bundle.json (core/signing.py)

What is read comes from anywhere: the number of entries, their names, kinds and sizes are bounded before anything is
unpacked, and what is counted is what really comes out.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from nucleus.cli import exits
from nucleus.core import signing

SHEET, SETTINGS, CERTIFICATE = "bundle.json", "settings.json", "certificate.json"
CODE = "BUNDLE_NOT_VALID"
LIMIT_ENTRIES = 32
LIMIT_BYTES = 600 * 1024 * 1024
SMALL_BYTES = 1024 * 1024  # of each file but the model's
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can say
_MODE = (stat.S_IFREG | 0o644) << 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 1024 * 1024
_ENCRYPTED = 0x1


class Bundle(Struct, frozen=True):
    """What is in a bundle: SHA-256 in hex and size of every file but bundle.json, and the content of all but the model."""

    path: Path
    component: str
    version: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int]
    small: Mapping[str, bytes]

    @property
    def model(self) -> str:
        """The name of the model's file."""
        return str(_object(self.path, signing.MODEL, self.small[signing.MODEL])["file"])

    @property
    def alias(self) -> str:
        """The name under which applications ask for the model."""
        return str(_object(self.path, signing.MODEL, self.small[signing.MODEL])["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """The runtime settings, as the agent takes them."""
        return _object(self.path, SETTINGS, self.small.get(SETTINGS, b"{}"))


def write(target: Path, component: str, version: str, files: Mapping[str, Path]) -> None:
    """Writes a bundle with these files, in place of an older one only when it is whole."""
    sheet = json.dumps({"component": component, "format": 1, "version": version}, ensure_ascii=False).encode() + b"\n"
    wrong = next((name for name in files if not _NAME.fullmatch(name)), None)
    if wrong is not None:
        raise exits.Failure(f"cannot write {target}: {wrong[:60]!r} is no plain file name")
    new = target.with_name(f".{target.name}.new")
    try:
        with zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as made:
            for name in sorted({*files, SHEET}):
                with made.open(_entry(name), "w") as entry, _source(files.get(name), sheet) as source:
                    shutil.copyfileobj(source, entry, _CHUNK_BYTES)
        new.replace(target)
    except OSError as error:
        raise exits.Failure(f"cannot write {target}: {error}") from None
    finally:
        new.unlink(missing_ok=True)


def read(path: Path) -> Bundle:
    """Looks through a bundle, unpacking nothing to the disk. Raises exits.Failure with CODE."""
    digests: dict[str, str] = {}
    sizes: dict[str, int] = {}
    small: dict[str, bytes] = {}
    with _opened(path) as archive:
        entries = _entries(path, archive)
        for name, entry in entries.items():
            digest, begin = hashlib.sha256(), b""
            sizes[name] = 0
            for chunk in _chunks(path, archive, entry):
                digest.update(chunk)
                sizes[name] += len(chunk)
                begin = begin + chunk if len(begin) <= SMALL_BYTES else begin
            digests[name] = digest.hexdigest()
            if sizes[name] <= SMALL_BYTES:
                small[name] = begin
    return _understood(path, digests, sizes, small)


def unpack(bundle: Bundle, folder: Path) -> None:
    """Writes the files into `folder`; raises exits.Failure if they are not those that were read."""
    with _opened(bundle.path) as archive:
        for name, entry in _entries(bundle.path, archive).items():
            if name == SHEET:
                continue
            digest = hashlib.sha256()
            with (folder / name).open("xb") as file:
                for chunk in _chunks(bundle.path, archive, entry):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != bundle.digests.get(name):
                raise _not_valid(bundle.path, f"{name} changed while it was read; try again")
            (folder / name).chmod(0o644)


def _understood(path: Path, digests: dict[str, str], sizes: dict[str, int], small: dict[str, bytes]) -> Bundle:
    """Checks that everything belongs together."""
    for name in (SHEET, signing.MODEL):
        if name not in digests:
            raise _not_valid(path, f"it has no {name}")
    sheet = _object(path, SHEET, small.get(SHEET, b""))
    if sheet.get("format") != 1 or not _texts(sheet, "component", "version"):
        raise _not_valid(path, f"{SHEET} is not of a format this release knows; update Marram")
    described = _object(path, signing.MODEL, small.get(signing.MODEL, b""))
    if not _texts(described, "file", "name") or described["file"] not in digests:
        raise _not_valid(path, f"{signing.MODEL} names no model that is in it")
    model = described["file"]
    large = [name for name in digests if name not in small and name != model]
    if large:
        raise _not_valid(path, f"{large[0]} is larger than {SMALL_BYTES} bytes")
    if digests[model] != str(described.get("sha256")).lower():
        raise _not_valid(path, f"{model} is not the file that {signing.MODEL} describes")
    _object(path, SETTINGS, small.get(SETTINGS, b"{}"))
    without = {name: digest for name, digest in digests.items() if name != SHEET}
    sizes = {name: size for name, size in sizes.items() if name != SHEET}
    return Bundle(path, sheet["component"], sheet["version"], without, sizes, small)


class _Bounded(io.BufferedIOBase):
    """A file of which nobody reads more than a chunk at once: zipfile would take a directory of any size into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises BadZipFile for more than a chunk."""
        wanted = size if size is not None and 0 <= size <= _CHUNK_BYTES else _CHUNK_BYTES + 1
        data = self._file.read(wanted)
        if len(data) > _CHUNK_BYTES:
            raise zipfile.BadZipFile(f"its directory is larger than {_CHUNK_BYTES} bytes")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(_Bounded(file)) as archive:
            yield archive
    except OSError as error:
        raise exits.Failure(f"cannot read {path}: {error.strerror or error} [IO_ERROR]") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        raise _not_valid(path, f"it is no bundle, or cut off: {error}; bring it again") from None


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, each of a kind and a name that a bundle may have."""
    found: dict[str, zipfile.ZipInfo] = {}
    entries = archive.infolist()
    if len(entries) > LIMIT_ENTRIES:
        raise _not_valid(path, f"it has more than {LIMIT_ENTRIES} entries")
    if sum(entry.file_size for entry in entries) > LIMIT_BYTES:
        raise _not_valid(path, f"its content is larger than {LIMIT_BYTES} bytes")
    for entry in entries:
        name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
        if not _NAME.fullmatch(name) or name != entry.filename:
            raise _not_valid(path, f"{name[:60]!r} is no plain file name")
        if kind not in (0, stat.S_IFREG):
            raise _not_valid(path, f"{name} is no plain file but a link or a device")
        if name in found:
            raise _not_valid(path, f"{name} is in it twice")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & _ENCRYPTED:
            raise _not_valid(path, f"{name} is encrypted, or compressed in another way than by deflate")
        found[name] = entry
    return found


def _chunks(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content, as much as the directory said and no more."""
    left = entry.file_size
    with archive.open(entry) as file:
        while chunk := _piece(path, file):
            left -= len(chunk)
            if left < 0:
                raise _not_valid(path, f"{entry.filename} is larger than it says")
            yield chunk


def _piece(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.read(_CHUNK_BYTES)
    except Exception as error:  # zlib's and zipfile's own errors share no base
        raise _not_valid(path, f"it is damaged: {error}; bring it again") from None


def _source(file: Path | None, sheet: bytes) -> IO[bytes]:
    return io.BytesIO(sheet) if file is None else file.open("rb")


def _entry(name: str) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, _EPOCH)
    made.create_system, made.external_attr, made.compress_type = 3, _MODE, zipfile.ZIP_STORED
    return made


def _object(path: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_valid(path, f"{name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise _not_valid(path, f"{name} is no JSON object")
    return found


def _texts(given: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(given.get(key), str) and 0 < len(given[key]) <= 256 for key in keys)


def _not_valid(path: Path, why: str) -> exits.Failure:
    return exits.Failure(f"cannot use {path}: {why} [{CODE}]")
