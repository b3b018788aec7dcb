"""What is kept for client devices (`<root>/client_devices`, 0700): who was verified, the authority, server certificates.

Files of 0600, replaced as a whole: `verified.json`, `authority.json` (with `authority.pem`, the certificate alone, for
people to give to devices), `server-<hash of the component>.json`. A file that cannot be read is as none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from nucleus.host import files


class Verified(Struct, frozen=True):
    """The cloud said at `at_s` (epoch seconds) that a certificate, valid until `until_s`, is good, for `thing` if given."""

    certificate_id: str
    thing: str
    at_s: float
    until_s: float


class Authority(Struct, frozen=True):
    """A certificate authority: PEM, and its end in epoch seconds."""

    private_key: str
    certificate: str
    until_s: float


class Server(Struct, frozen=True):
    """A component's server certificate. `authority` is the PEM of who signed it, `validity_s` what was asked for."""

    component: str
    private_key: str
    public_key: str
    certificate: str
    authority: str
    names: tuple[str, ...]
    from_s: float
    until_s: float
    validity_s: float


_T = TypeVar("_T")


class ClientDeviceStore:
    """The folder. Who calls decides in which thread; writes are durable when they return and raise NucleusError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def verified(self) -> tuple[Verified, ...]:
        return self._read("verified.json", tuple[Verified, ...]) or ()

    def save_verified(self, all_: tuple[Verified, ...]) -> None:
        self._write("verified.json", msgspec.json.encode(all_))

    def authority(self) -> Authority | None:
        return self._read("authority.json", Authority)

    def save_authority(self, one: Authority) -> None:
        self._write("authority.json", msgspec.json.encode(one))
        self._write("authority.pem", one.certificate.encode(), 0o644)

    def server(self, component: str) -> Server | None:
        found = self._read(_server_file(component), Server)
        return found if found is not None and found.component == component else None

    def save_server(self, one: Server) -> None:
        self._write(_server_file(one.component), msgspec.json.encode(one))

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        try:
            return msgspec.json.decode((self._folder / name).read_bytes(), type=kind)
        except (OSError, ValueError, RecursionError):
            return None

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        path = self._folder / name
        with files.writing(path):
            files.make_directory(self._folder, 0o700)
            files.write_durably(path, data, mode)


def _server_file(component: str) -> str:
    return f"server-{hashlib.sha256(component.encode()).hexdigest()[:32]}.json"
