"""What a service is started with, and what `init` lays down once in its root folder.

`cloud.json` fixes account and region: every stored ARN contains them (design.md 4.6, row 19).
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from cloud.store import database, identities, pki

ACCOUNT = "123456789012"
REGION = "us-east-1"  # a real region's name, because the original nucleus checks
OPERATOR = "operator"  # the user name of the first access key


class Settings(Struct, frozen=True):
    """How to serve; port 0 takes a free one. `names` go into the server's certificate, the first is advertised."""

    api_port: int = 8080
    device_port: int = 8443
    mqtt_port: int = 8883
    host: str = "127.0.0.1"
    names: tuple[str, ...] = ("localhost", "127.0.0.1")


class Constants(Struct, frozen=True):
    """What never changes after `init`."""

    account: str
    region: str


def init(root: Path, account: str = ACCOUNT, region: str = REGION) -> None:
    """Makes a new service: CA, server certificate, database, the operator's access key, and `cloud.json` last.

    The operator's files are `operator/credentials` and `operator/config` (AWS's own format). Raises FileExistsError
    rather than replace a service, ValueError for an impossible account or region.
    """
    if not re.fullmatch(r"\d{12}", account):
        raise ValueError(f"cannot create a service for account {account!r}: an account is 12 digits")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        raise ValueError(f"cannot create a service in region {region!r}: take a name like {REGION}")
    held = [name for name in ("cloud.json", "ca.key", "cloud.db") if (root / name).exists()]
    if held:
        raise FileExistsError(
            f"cannot create a service in {root}: {held[0]} is there already; choose another folder, or remove this one"
        )
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki.Authority.create(root).issue_server(Settings().names)
    (root / "objects").mkdir(exist_ok=True)
    _create_operator(root, region)
    write(root / "cloud.json", msgspec.json.encode(Constants(account, region)), 0o644)


def constants(root: Path) -> Constants:
    """Raises FileNotFoundError if `init` never ran here, msgspec.MsgspecError if `cloud.json` is damaged."""
    path = root / "cloud.json"
    if not path.exists():
        raise FileNotFoundError(f"cannot find a service in {root}: run `marram cloud init --root {root}` first")
    return msgspec.json.decode(path.read_bytes(), type=Constants)


def open_database(root: Path) -> database.Database:
    """The service's database, with what a newer version added."""
    opened = database.Database(f"sqlite:///{root / 'cloud.db'}")
    opened.create()
    return opened


def write(path: Path, data: bytes, mode: int) -> None:
    """Replaces a small file at once, so that no reader sees half of it."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=mode)
    new.write_bytes(data)
    new.rename(path)


def _create_operator(root: Path, region: str) -> None:
    opened = open_database(root)
    try:
        with opened.begin() as tx:
            key = identities.create_access_key(tx, OPERATOR, time.time_ns() // 1_000_000)
    finally:
        opened.close()
    (root / "operator").mkdir(exist_ok=True, mode=0o700)
    credentials = f"[default]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n"
    write(root / "operator" / "credentials", credentials.encode(), 0o600)
    write(root / "operator" / "config", f"[default]\nregion = {region}\noutput = json\n".encode(), 0o644)
