"""Judges the very bytes the agent is about to load, by the rules the nucleus used when it brought them (marram_signing.py).

Between the two, a file may have been exchanged. Whom the device trusts is read anew for every offer, so that a revocation
counts at once. The cipher is whichever of awscrt (P-256 only) and cryptography is installed; without one nothing that must
be signed is accepted.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRUST, FLOORS = "trust.json", "security_floors.json"  # in the nucleus's root folder
UNREADABLE = "SIGNATURE_NOT_VALID"  # also of a trust that cannot be read
KEPT_CODES = frozenset({UNREADABLE, "SIGNING_KEY_REVOKED", "BELOW_SECURITY_FLOOR"})  # what check_kept refuses with
_LIMIT_BYTES = 1024 * 1024


class UnsignedError(Exception):
    """`code` is one of marram_signing.CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def judge(component: str, version: str, files: Mapping[str, bytes], folder: Path, root: Path | None) -> str:
    """Raises UnsignedError unless `files` may be loaded; returns the id of the key that signed them, "" for none needed.

    `folder` holds the manifest and its signature, `root` is the nucleus's root folder (None: nobody is trusted).
    """
    if root is None:
        return ""
    signing: Any = importlib.import_module("marram_signing")
    try:
        trust = signing.read_trust(_json(root / TRUST))
        floor = str(_json(root / FLOORS).get(component, ""))
    except (ValueError, RecursionError) as error:
        raise UnsignedError("SIGNATURE_NOT_VALID", f"whom this device trusts cannot be read: {error}") from error
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        found = signing.check(
            component,
            version,
            digests,
            _content(folder / signing.MANIFEST),
            _content(folder / signing.SIGNATURE),
            trust,
            verify,
            floor,
        )
    except signing.NotTrustedError as refusal:
        raise UnsignedError(refusal.code, str(refusal)) from refusal
    return found.key if found is not None else ""


def check_kept(component: str, version: str, signer: str, root: Path | None) -> None:
    """Raises UnsignedError for a kept model that may not answer (again): ruled out by a newer one, or its key was revoked."""
    if root is None:
        return
    signing: Any = importlib.import_module("marram_signing")
    try:
        floor = str(_json(root / FLOORS).get(component, ""))
        revoked = signing.read_trust(_json(root / TRUST)).revoked
    except (ValueError, RecursionError) as error:
        raise UnsignedError("SIGNATURE_NOT_VALID", f"whom this device trusts cannot be read: {error}") from error
    if signer in revoked:
        raise UnsignedError("SIGNING_KEY_REVOKED", f"the key {signer} is revoked; sign it with another one")
    if floor and signing.order(version) < signing.order(floor):
        raise UnsignedError("BELOW_SECURITY_FLOOR", f"versions below {floor} were ruled out by a signed manifest")


def signed_for(folder: Path, root: Path | None) -> tuple[str, str]:
    """(component, version) that the manifest in `folder` names, to be judged for; ("", "") without one."""
    if root is None:
        return "", ""
    signing: Any = importlib.import_module("marram_signing")
    try:
        found = _json(folder / signing.MANIFEST)
    except (ValueError, RecursionError) as error:
        raise UnsignedError("MANIFEST_NOT_VALID", f"its manifest cannot be read: {error}") from error
    return str(found.get("component", "")), str(found.get("version", ""))


def verify(algorithm: str, der: bytes, data: bytes, signature: bytes) -> bool:
    """marram_signing.Verify. Raises ValueError when no cipher for it is installed."""
    if algorithm != "ED25519":
        crypto = _optional("awscrt.crypto")
        if crypto is not None:
            return bool(crypto.EC.new_key_from_der_data(der).verify(hashlib.sha256(data).digest(), signature))
    serialization = _optional("cryptography.hazmat.primitives.serialization")
    if serialization is None:
        raise ValueError(f"neither awscrt nor cryptography can verify {algorithm} here; install one for the agent")
    key = serialization.load_der_public_key(der)
    try:
        if algorithm == "ED25519":
            key.verify(signature, data)
        else:
            elliptic = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ec")
            hashes = importlib.import_module("cryptography.hazmat.primitives.hashes")
            key.verify(signature, data, elliptic.ECDSA(hashes.SHA256()))
    except importlib.import_module("cryptography.exceptions").InvalidSignature:
        return False
    return True


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _json(path: Path) -> dict[str, Any]:
    data = _content(path)
    found = json.loads(data) if data is not None else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return found


def _content(path: Path) -> bytes | None:
    """None when there is no such file; what cannot be read, is no plain file, or is too large, is empty and so refused."""
    try:
        # Never waits: whoever offers a model may have put a pipe there, and every other change would wait, too.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(_LIMIT_BYTES + 1) if plain else b""
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    return data if len(data) <= _LIMIT_BYTES else b""
