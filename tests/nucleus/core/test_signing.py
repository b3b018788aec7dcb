"""Signed manifests: every way in which files, manifest, signature, key or device may be wrong has its code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from awscrt import crypto
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import signing

NAME, VERSION = "com.example.Model", "1.1.0"
FILES = {"model.json": hashlib.sha256(b"{}").hexdigest(), "model.onnx": hashlib.sha256(b"weights").hexdigest()}


class Signer:
    def __init__(self) -> None:
        self.private = crypto.EC.new_generate(crypto.ECType.P_256)
        self.der = self.private.export_key(crypto.ECExportFormat.SPKI)
        self.id = signing.key_id(self.der)

    def sign(self, manifest: bytes) -> bytes:
        return signing.write_signature(self.id, self.private.sign(hashlib.sha256(manifest).digest()))

    def trust(self, **more: Any) -> dict[str, Any]:
        return {"keys": {self.id: {"name": "ours", "publicKey": base64.b64encode(self.der).decode()}}, **more}


OURS, THEIRS = Signer(), Signer()


def verify(algorithm: str, der: bytes, data: bytes, signature: bytes) -> bool:
    assert algorithm == signing.ECDSA
    return bool(crypto.EC.new_key_from_der_data(der).verify(hashlib.sha256(data).digest(), signature))


def judge(
    *,
    files: dict[str, str] | None = None,
    signer: Signer = OURS,
    trust: dict[str, Any] | None = None,
    floor: str = "",
    edit: Callable[[bytes], bytes] = lambda manifest: manifest,
    edit_signature: Callable[[bytes], bytes] = lambda signature: signature,
    component: str = NAME,
    version: str = VERSION,
    **content: Any,
) -> signing.Manifest | None:
    manifest = signing.write_manifest(NAME, VERSION, FILES, **content)
    signature = edit_signature(signer.sign(manifest))
    settings = signing.read_trust(OURS.trust() if trust is None else trust)
    found = FILES if files is None else files
    return signing.check(component, version, found, edit(manifest), signature, settings, verify, floor)


def test_manifest_when_everything_is_right_then_returned() -> None:
    found = judge(floor="1.1.0", certificate={"metric": 0.97})
    assert found is not None
    assert (found.component, found.version, found.artifacts, found.key) == (NAME, VERSION, FILES, OURS.id)
    assert found.certificate == {"metric": 0.97}


def test_manifest_when_it_covers_another_platform_too_then_accepted() -> None:
    assert judge(files={"model.json": FILES["model.json"]}) is not None


@pytest.mark.parametrize(
    ("code", "case"),
    [
        ("SIGNING_KEY_UNKNOWN", {"signer": THEIRS}),
        ("SIGNING_KEY_REVOKED", {"trust": OURS.trust(revoked=[OURS.id])}),
        ("SIGNATURE_NOT_VALID", {"edit": lambda data: data + b" "}),
        ("SIGNATURE_NOT_VALID", {"edit": lambda data: data.replace(b"1.1.0", b"9.9.9")}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: data[:-20]}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: data.replace(b"ECDSA_P256_SHA256", b"ED25519")}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: signing.write_signature(OURS.id, b"short")}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: b"[]"}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: b" " * (signing.LIMIT_BYTES + 1)}),
        ("SIGNATURE_NOT_VALID", {"edit_signature": lambda data: _base64_of(data, "%%%")}),
        ("MANIFEST_NOT_VALID", {"component": "com.example.Other"}),
        ("MANIFEST_NOT_VALID", {"version": "1.2.0"}),
        ("ARTIFACT_CHANGED", {"files": FILES | {"model.onnx": "0" * 64}}),
        ("ARTIFACT_NOT_SIGNED", {"files": FILES | {"extra.so": "0" * 64}}),
        ("BELOW_SECURITY_FLOOR", {"floor": "1.1.1"}),
        ("WRONG_DEVICE_CLASS", {"classes": ("gateway",)}),
        ("WRONG_DEVICE_CLASS", {"classes": ("gateway",), "trust": OURS.trust(deviceClass="turbine")}),
    ],
)
def test_manifest_when_something_is_wrong_then_refused_with_its_code(code: str, case: dict[str, Any]) -> None:
    with pytest.raises(signing.NotTrustedError) as refusal:
        judge(**case)

    assert refusal.value.code == code
    assert code in signing.CODES
    assert str(refusal.value).startswith(
        f"cannot accept {case.get('component', NAME)} {case.get('version', VERSION)}: "
    )


def _base64_of(signature: bytes, text: str) -> bytes:
    return json.dumps(json.loads(signature) | {"signature": text}).encode()


def _signed(manifest: dict[str, Any] | bytes) -> None:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    trust = signing.read_trust(OURS.trust())
    signing.check(NAME, VERSION, FILES, data, OURS.sign(data), trust, verify)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"artifacts": []},
        {"artifacts": {"model.json": "short"}},
        {"artifacts": {"../model.json": "0" * 64}},
        {"artifacts": {str(number): "0" * 64 for number in range(signing.LIMIT_FILES + 1)}},
        {"classes": "gateway"},
        {"certificate": 1},
    ],
)
def test_manifest_when_signed_but_of_another_form_then_refused(change: dict[str, Any]) -> None:
    good = json.loads(signing.write_manifest(NAME, VERSION, FILES))
    _signed(good)
    with pytest.raises(signing.NotTrustedError) as refusal:
        _signed(good | change)
    assert refusal.value.code == "MANIFEST_NOT_VALID"


@pytest.mark.parametrize("content", [b"no json", b"[" * 5000, b"[]"])
def test_manifest_when_signed_but_no_object_then_refused(content: bytes) -> None:
    with pytest.raises(signing.NotTrustedError) as refusal:
        _signed(content)
    assert refusal.value.code == "MANIFEST_NOT_VALID"


@pytest.mark.parametrize(
    ("trust", "files", "manifest", "refused"),
    [
        ({}, FILES, None, False),
        ({}, FILES, b"{}", False),
        (OURS.trust(), FILES, None, True),
        ({"revoked": ["0" * 32]}, FILES, None, True),
        (OURS.trust(), {"app.py": "0" * 64}, None, False),
        (OURS.trust(), {"app.py": "0" * 64}, b"{}", True),
    ],
    ids=["no trust", "no trust, half signed", "unsigned model", "only revoked keys", "no model", "signature stripped"],
)
def test_unsigned_when_offered_then_refused_as_soon_as_a_key_was_trusted(
    trust: dict[str, Any], files: dict[str, str], manifest: bytes | None, refused: bool
) -> None:
    settings = signing.read_trust(trust)
    if not refused:
        assert signing.check(NAME, VERSION, files, manifest, None, settings, verify) is None
        return
    with pytest.raises(signing.NotTrustedError) as refusal:
        signing.check(NAME, VERSION, files, manifest, None, settings, verify)
    assert refusal.value.code == "SIGNATURE_MISSING"


def test_trust_when_a_key_is_not_what_its_id_says_then_value_error() -> None:
    good = OURS.trust()
    swapped = {"keys": {OURS.id: THEIRS.trust()["keys"][THEIRS.id]}}
    large = crypto.EC.new_generate(crypto.ECType.P_384).export_key(crypto.ECExportFormat.SPKI)
    other = {"keys": {signing.key_id(large): {"publicKey": base64.b64encode(large).decode()}}}
    assert signing.read_trust(good).keys[OURS.id].name == "ours"
    wrong: list[dict[str, Any]] = [swapped, other, {"keys": []}, {"revoked": "x"}, {"keys": {"x": 1}}]
    for bad in wrong:
        with pytest.raises(ValueError, match=r"trust|Ed25519"):
            signing.read_trust(bad)


def test_pem_when_read_then_the_key_or_a_reason() -> None:
    text = base64.encodebytes(OURS.der).decode()
    assert signing.public_key(f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n") == OURS.der
    with pytest.raises(ValueError, match="PEM"):
        signing.public_key("-----BEGIN PRIVATE KEY-----")


def test_versions_when_ordered_then_by_precedence() -> None:
    rising = [
        "x",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0",
        "1.0.1",
    ]
    shuffled = rising[3:] + rising[:3]
    assert sorted(shuffled, key=signing.order) == rising
    assert signing.order("1.0.0+a") == signing.order("1.0.0+b")
    assert signing.higher("", "1.0.0") == signing.higher("1.0.0", "0.9.0") == "1.0.0"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_check_when_the_files_are_random_then_only_refusals(manifest: bytes, signature: bytes) -> None:
    trust = signing.read_trust(OURS.trust())
    with pytest.raises(signing.NotTrustedError):
        signing.check(NAME, VERSION, FILES, manifest, signature, trust, verify)
