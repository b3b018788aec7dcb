"""Secrets at rest: one file of sealed values, replaced as a whole (`<folder>/secrets.json`, 0600).

It holds names, versions and labels in the clear and the values sealed (nucleus/vault.py), each to its ARN and version. A
file that cannot be read is put aside: secrets come again from the cloud, and nothing must wait for them to start.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct

from nucleus.core import secrets
from nucleus.host import files

FILE = "secrets.json"
FORMAT = 1


class Sealed(Struct, frozen=True):
    """One version with its sealed value."""

    version: secrets.Version
    nonce: bytes
    sealed: bytes


class Contents(Struct, frozen=True):
    """`key` is the id of the device's key that sealed, `key_file` where it lay then, `salt` that of the data key."""

    key: str = ""
    key_file: str = ""
    salt: bytes = b""
    entries: tuple[Sealed, ...] = ()
    format: int = FORMAT


class SecretStore:
    """The file; who calls decides in which thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    def load(self) -> tuple[Contents, str]:
        """What is stored, and what had to be put aside ("" for nothing). Never raises."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Contents)
            if found.format == FORMAT:
                return found, ""
            why = f"its format is {found.format}"
        except FileNotFoundError:
            return Contents(), ""
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            why = str(error)
        self.put_aside()
        return Contents(), f"cannot read {self._path}: {why}; its secrets are fetched again"

    def save(self, contents: Contents) -> None:
        """Durable when it returns. Raises NucleusError IO_WRITE_ERROR, DISK_SPACE_CRITICAL."""
        with files.writing(self._path):
            if not contents.entries and not self._path.exists():
                return
            files.make_directory(self._folder, 0o700)
            if contents.entries:
                files.write_durably(self._path, msgspec.json.encode(contents), 0o600)
            else:
                self._path.unlink(missing_ok=True)
                files.sync_directory(self._folder)

    def put_aside(self) -> None:
        """Keeps a file that is of no use under another name, for people."""
        with contextlib.suppress(OSError):
            self._path.replace(self._path.with_name(f"{FILE}.damaged"))
