"""Signed artifacts: a manifest that lists every file of a component version with its digest, and one signature over it.

One file on purpose, standard library only: `marram component publish` puts it beside an artifact as `marram_signing.py`, so
that the model agent judges the very bytes it loads by the same rules as the nucleus before any script runs.

    marram.manifest.json  {"format": 1, "component", "version", "artifacts": {file name: SHA-256 hex, …},
                           "floor": version or "", "classes": [device class, …], "certificate": {…} (optional)}
    marram.manifest.sig   {"key": id, "algorithm": "ECDSA_P256_SHA256" or "ED25519", "signature": base64}

The signature covers the manifest's bytes as they are. A key's id is the first 32 hex digits of SHA-256 over its public key
(SubjectPublicKeyInfo, DER). `floor`: no version below it is accepted ever after, on devices that have seen it; any version at
or above it is, so that a rollback works. `classes`: the device's class must be one of them; empty means any.
Verifying itself needs a cipher and is handed in: `Verify(algorithm, public key DER, data, signature) -> bool`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "marram.manifest.json"
SIGNATURE = "marram.manifest.sig"
MODEL = "model.json"  # who has this file is a model, and must be signed as soon as a key is trusted
ECDSA = "ECDSA_P256_SHA256"
ED25519 = "ED25519"
LIMIT_BYTES = 1024 * 1024
LIMIT_FILES = 1000
ID_CHARACTERS = 32
_KINDS = {  # how a SubjectPublicKeyInfo of each algorithm begins, and its length in bytes
    ECDSA: (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107"), 91),
    ED25519: (bytes.fromhex("302a300506032b6570032100"), 44),
}
_DIGEST = re.compile(r"[0-9a-f]{64}")

Verify = Callable[[str, bytes, bytes, bytes], bool]


class NotTrustedError(Exception):
    """`code` is a word of CODES; the message is for people and says what to do next."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


CODES = {
    "SIGNATURE_MISSING": "a model must be signed once a key is trusted",
    "SIGNATURE_NOT_VALID": "the signature does not belong to these bytes, or cannot be read",
    "SIGNING_KEY_UNKNOWN": "no key of that id is trusted here",
    "SIGNING_KEY_REVOKED": "the key was trusted once and is not any more",
    "MANIFEST_NOT_VALID": "the signed manifest cannot be read, or is another component's",
    "ARTIFACT_NOT_SIGNED": "a file that is not in the signed manifest",
    "ARTIFACT_CHANGED": "a file that is not what was signed",
    "BELOW_SECURITY_FLOOR": "an old version that a signed newer one has ruled out",
    "WRONG_DEVICE_CLASS": "made for other devices",
}


@dataclass(frozen=True)
class Key:
    """`der` is the public key as SubjectPublicKeyInfo."""

    id: str
    name: str
    der: bytes


@dataclass(frozen=True)
class Trust:
    """The keys a device trusts, by id, the ids it does not trust any more, and the device's own class ("" for none)."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    device_class: str = ""

    @property
    def demands(self) -> bool:
        """Whether models must be signed here: as soon as one key was trusted, even if it is revoked by now."""
        return bool(self.keys or self.revoked)


@dataclass(frozen=True)
class Manifest:
    """A verified manifest; `artifacts` maps file names to SHA-256 in lower-case hex."""

    component: str
    version: str
    artifacts: Mapping[str, str]
    floor: str
    classes: tuple[str, ...]
    certificate: Mapping[str, Any]
    key: str


def key_id(der: bytes) -> str:
    """The id of a public key."""
    return hashlib.sha256(der).hexdigest()[:ID_CHARACTERS]


def algorithm_of(der: bytes) -> str:
    """ECDSA or ED25519 by the key's own description. Raises ValueError for any other key."""
    for algorithm, (begin, size) in _KINDS.items():
        if der.startswith(begin) and len(der) == size:
            return algorithm
    raise ValueError("it is neither a P-256 nor an Ed25519 public key")


def write_manifest(
    component: str,
    version: str,
    artifacts: Mapping[str, str],
    *,
    floor: str = "",
    classes: tuple[str, ...] = (),
    certificate: Mapping[str, Any] | None = None,
) -> bytes:
    """The manifest's bytes, to be signed as they are; equal contents give equal bytes."""
    files = dict(sorted(artifacts.items()))
    content: dict[str, Any] = {"format": 1, "component": component, "version": version, "artifacts": files}
    content |= {"floor": floor, "classes": sorted(classes), "certificate": dict(certificate or {})}
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def write_signature(key: str, signature: bytes, algorithm: str = ECDSA) -> bytes:
    """The content of the signature's file."""
    text = base64.b64encode(signature).decode()
    return json.dumps({"key": key, "algorithm": algorithm, "signature": text}).encode() + b"\n"


def check(
    component: str,
    version: str,
    digests: Mapping[str, str],
    manifest: bytes | None,
    signature: bytes | None,
    trust: Trust,
    verify: Verify,
    floor: str = "",
) -> Manifest | None:
    """Judges the files of a component version: `digests` are theirs, without the manifest's own two files.

    One manifest may cover the files of several platforms. `floor` is the highest that this device has seen. Returns the
    manifest, None for what needs no signature here. Raises NotTrustedError.
    """
    who = f"{component} {version}"
    if manifest is None or signature is None:
        if trust.demands and (MODEL in digests or manifest is not None):
            raise _refusal("SIGNATURE_MISSING", who, "it is not signed; sign it with marram component sign")
        return None
    if not trust.demands:
        return None
    key = _signer(who, signature, trust)
    algorithm, value = _read_signature(who, signature, key)
    try:
        right = verify(algorithm, key.der, manifest, value)
    except Exception as error:  # whatever a cipher's library makes of bytes from outside
        raise _refusal("SIGNATURE_NOT_VALID", who, f"its signature cannot be checked: {error}") from error
    if not right:
        raise _refusal("SIGNATURE_NOT_VALID", who, f"its manifest is not what {key.name} signed; publish it again")
    found = _read_manifest(who, manifest, key.id)
    if (found.component, found.version) != (component, version):
        raise _refusal("MANIFEST_NOT_VALID", who, f"its manifest was signed for {found.component} {found.version}")
    _check_files(who, found, digests)
    _check_place(who, found, trust, floor)
    return found


def _signer(who: str, signature: bytes, trust: Trust) -> Key:
    key = str(_json(who, signature, "signature").get("key"))
    if key in trust.revoked:
        raise _refusal("SIGNING_KEY_REVOKED", who, f"the key {key} is revoked; sign it with another one")
    if key not in trust.keys:
        raise _refusal(
            "SIGNING_KEY_UNKNOWN", who, f"no key {key[:ID_CHARACTERS]!r} is trusted here; see marram key trust"
        )
    return trust.keys[key]


def _read_signature(who: str, signature: bytes, key: Key) -> tuple[str, bytes]:
    given = _json(who, signature, "signature")
    algorithm = algorithm_of(key.der)  # the key's own; what the file says must agree, so that nobody can choose another
    if given.get("algorithm") != algorithm:
        raise _refusal("SIGNATURE_NOT_VALID", who, f"its signature is not of the key's algorithm {algorithm}")
    try:
        return algorithm, base64.b64decode(str(given.get("signature")), validate=True)
    except ValueError as error:
        raise _refusal("SIGNATURE_NOT_VALID", who, f"its signature is no base64: {error}") from error


def _read_manifest(who: str, data: bytes, key: str) -> Manifest:
    given = _json(who, data, "manifest")
    artifacts, classes, certificate = given.get("artifacts"), given.get("classes", []), given.get("certificate", {})
    kinds = isinstance(classes, list) and isinstance(certificate, dict)
    if given.get("format") != 1 or not isinstance(artifacts, dict) or len(artifacts) > LIMIT_FILES or not kinds:
        raise _refusal("MANIFEST_NOT_VALID", who, "its manifest is not of a format this release knows; update Marram")
    wrong = [name for name, digest in artifacts.items() if not _DIGEST.fullmatch(str(digest)) or _is_path(name)]
    if wrong:
        raise _refusal(
            "MANIFEST_NOT_VALID", who, f"its manifest has no digest, or no plain file name, for {wrong[0]!r}"
        )
    return Manifest(
        component=str(given.get("component")),
        version=str(given.get("version")),
        artifacts=artifacts,
        floor=str(given.get("floor") or ""),
        classes=tuple(str(one) for one in classes),
        certificate=certificate,
        key=key,
    )


def _check_files(who: str, manifest: Manifest, digests: Mapping[str, str]) -> None:
    for name, digest in sorted(digests.items()):
        if name not in manifest.artifacts:
            raise _refusal("ARTIFACT_NOT_SIGNED", who, f"{name} is not in its signed manifest")
        if manifest.artifacts[name] != digest.lower():
            raise _refusal("ARTIFACT_CHANGED", who, f"{name} is not what was signed")


def _check_place(who: str, manifest: Manifest, trust: Trust, floor: str) -> None:
    if manifest.classes and trust.device_class not in manifest.classes:
        wanted = ", ".join(manifest.classes)
        raise _refusal(
            "WRONG_DEVICE_CLASS", who, f"it is for {wanted}; this device is {trust.device_class or 'of no class'}"
        )
    if floor and order(manifest.version) < order(floor):
        raise _refusal("BELOW_SECURITY_FLOOR", who, f"versions below {floor} were ruled out by a signed manifest")


def order(version: str) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
    """Sorts versions by semantic versioning, with no more than the rules for precedence; what is none sorts lowest."""
    core, _, rest = version.partition("+")[0].partition("-")
    numbers = [int(part) for part in core.split(".")[:3] if part.isdecimal()]
    if len(numbers) != 3:
        return (-1, -1, -1), False, ()
    parts = tuple((not one.isdecimal(), int(one) if one.isdecimal() else 0, one) for one in rest.split(".") if one)
    return (numbers[0], numbers[1], numbers[2]), not rest, parts


def higher(one: str, other: str) -> str:
    """The higher of two floors; "" is none."""
    return max(one, other, key=lambda each: order(each) if each else ((-2, 0, 0), False, ()))


def read_trust(settings: Mapping[str, Any]) -> Trust:
    """The trust in `{"keys": {id: {"name", "publicKey": base64 DER}}, "revoked": [id], "deviceClass"}`.

    Raises ValueError that names the key: a trust that is half read would accept what it should not.
    """
    keys, revoked = settings.get("keys", {}), settings.get("revoked", [])
    if not isinstance(keys, dict) or not isinstance(revoked, list):
        raise ValueError("trust: keys must be a map and revoked a list")
    found = {}
    for id_, one in keys.items():
        der = base64.b64decode(str(one.get("publicKey", "") if isinstance(one, dict) else ""), validate=True)
        if key_id(der) != id_:
            raise ValueError(f"trust: key {str(id_)[:40]!r} has another public key than its id says")
        algorithm_of(der)
        found[id_] = Key(id_, str(one.get("name") or id_), der)
    return Trust(found, frozenset(map(str, revoked)), str(settings.get("deviceClass") or ""))


def public_key(pem: str) -> bytes:
    """The DER in a PEM of a P-256 or Ed25519 public key. Raises ValueError."""
    found = re.search(r"-----BEGIN PUBLIC KEY-----(.+?)-----END PUBLIC KEY-----", pem, re.DOTALL)
    if found is None:
        raise ValueError("it holds no PUBLIC KEY in PEM form")
    der = base64.b64decode("".join(found[1].split()), validate=True)
    algorithm_of(der)
    return der


def _json(who: str, data: bytes, what: str) -> dict[str, Any]:
    code = "MANIFEST_NOT_VALID" if what == "manifest" else "SIGNATURE_NOT_VALID"
    if len(data) > LIMIT_BYTES:
        raise _refusal(code, who, f"its {what} is larger than {LIMIT_BYTES} bytes")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refusal(code, who, f"its {what} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise _refusal(code, who, f"its {what} is no JSON object")
    return given


def _is_path(name: str) -> bool:
    return not name or name in (".", "..") or "/" in name or "\0" in name


def _refusal(code: str, who: str, why: str) -> NotTrustedError:
    return NotTrustedError(code, f"cannot accept {who}: {why}")
