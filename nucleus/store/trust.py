"""Whom this device trusts with its models: `<root>/trust.json`, written only on the device (`marram key`).

No deployment can change it: a signature is there for the day on which the cloud, the registry or the way to them is not ours.
A file that cannot be read trusts nobody and still demands signatures. `<root>/security_floors.json` is the nucleus's own: the
lowest version of each model that it still accepts; deleting it makes the device forget what was ruled out.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nucleus.core import errors, signing
from nucleus.host import files

FILE = "trust.json"
FLOORS = "security_floors.json"
_LOCK = ".trust.lock"
_LIMIT_BYTES = 1024 * 1024


def read(root: Path) -> signing.Trust:
    """The trust of the device with this root. Raises NucleusError for a file that cannot be read."""
    return _understood(root, _read(root / FILE))


def add(root: Path, name: str, der: bytes) -> signing.Key:
    """Trusts a public key, also one that was revoked before. Raises NucleusError."""
    key = signing.Key(signing.key_id(der), name, der)
    with _alone(root):
        settings = _read(root / FILE)
        settings.setdefault("keys", {})[key.id] = {"name": name, "publicKey": base64.b64encode(der).decode()}
        settings["revoked"] = [one for one in settings.get("revoked", []) if one != key.id]
        _write(root, settings)
    return key


def revoke(root: Path, id_: str) -> None:
    """Trusts a key no more; unknown ids may be revoked before they are ever seen. Raises NucleusError."""
    with _alone(root):
        settings = _read(root / FILE)
        settings.get("keys", {}).pop(id_, None)
        settings["revoked"] = sorted({*settings.get("revoked", []), id_})
        _write(root, settings)


def set_class(root: Path, device_class: str) -> None:
    """What kind of device this is, for models that are made for some kinds only. Raises NucleusError."""
    with _alone(root):
        _write(root, _read(root / FILE) | {"deviceClass": device_class})


def floors(root: Path) -> dict[str, str]:
    """Component to the lowest version that is accepted. Raises NucleusError for a file that cannot be read."""
    return {name: str(floor) for name, floor in _read(root / FLOORS).items()}


def raise_floors(root: Path, new: Mapping[str, str]) -> None:
    """Keeps the higher of each. Raises NucleusError."""
    with _alone(root):
        known = floors(root)
        higher = known | {name: signing.higher(known.get(name, ""), floor) for name, floor in new.items()}
        if higher != known:
            files.write_durably(root / FLOORS, json.dumps(dict(sorted(higher.items()))).encode() + b"\n", 0o644)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Nobody else changes these files meanwhile: what one adds must not undo what another revoked or ruled out.

    The lock is a file of its own that components cannot open: who can would keep everybody waiting.
    """
    path = root / _LOCK
    with files.writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise errors.NucleusError("IO_READ_ERROR", f"cannot read {path}: {error.strerror}") from error
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it is no JSON object")
    return found


def _understood(root: Path, settings: dict[str, Any]) -> signing.Trust:
    try:
        return signing.read_trust(settings)
    except ValueError as error:
        raise _damaged(root / FILE, str(error)) from error


def _write(root: Path, settings: dict[str, Any]) -> None:
    _understood(root, settings)
    files.write_durably(root / FILE, json.dumps(settings, indent=1).encode() + b"\n", 0o644)


def _damaged(path: Path, why: str) -> errors.NucleusError:
    what = f"cannot use {path}: {why}; until it is mended or removed, no model is accepted"
    return errors.NucleusError("SIGNATURE_NOT_VALID", what)
