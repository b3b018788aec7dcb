"""The one-time founding of a service's root folder: account, region, database, authority, the operator's credentials.

Account and region are part of every ARN ever stored, hence immutable (design.md 4.6, row 19).
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from msgspec import Struct

from cloud.store import database, identities, pki
from nucleus.core import errors

ACCOUNT = "123456789012"
REGION = "us-east-1"
_FILE = "cloud.json"


class Founding(Struct, frozen=True):
    account: str
    region: str


def create(root: Path, account: str, region: str, now_ms: int) -> identities.AccessKey:
    """Founds a service in `root` and gives the operator's key, also written as AWS INI files below `operator/`.

    Raises FileExistsError if one was founded there before, ValueError for an account or region AWS's clients refuse.
    """
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError(f"cannot found a service for account {account!r}: an account is 12 digits")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        raise ValueError(f"cannot found a service in region {region!r}: use a name like {REGION}")
    if (root / _FILE).exists():
        raise FileExistsError(f"cannot found a service in {root}: there is one already (see {_FILE})")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = database.Database(f"sqlite:///{root / 'cloud.db'}")
    try:
        store.create()
        with store.begin() as tx:
            key = identities.create_access_key(tx, "operator", now_ms)
    finally:
        store.close()
    pki.Authority.create(root)
    _write_credentials(root / "operator", key, region)
    # Last, for it says that the rest is there.
    _write(root / _FILE, msgspec.json.format(msgspec.json.encode(Founding(account, region))) + b"\n", 0o644)
    return key


def read(root: Path) -> Founding:
    """Raises NucleusError if no service was founded in `root`."""
    try:
        return msgspec.json.decode((root / _FILE).read_bytes(), type=Founding)
    except FileNotFoundError:
        why = f"cannot open the service in {root}: it was never founded (marram cloud init --root {root})"
        raise errors.NucleusError("IO_READ_ERROR", why) from None


def _write_credentials(directory: Path, key: identities.AccessKey, region: str) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    secret = f"[default]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
    _write(directory / "credentials", secret.encode(), 0o600)
    _write(directory / "config", f"[default]\nregion = {region}\n".encode(), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.touch(mode)
    path.write_bytes(data)
