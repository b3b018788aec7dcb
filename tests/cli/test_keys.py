"""`marram key` and `marram component sign`, what they print and refuse."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from nucleus.cli import exits
from nucleus.core import signing
from nucleus.uplink import verifier
from tests.cli import marram


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def _listed(root: Path) -> list[tuple[str, str]]:
    return [
        (one["name"], one["state"]) for one in marram.run("key", "list", "--root", root, "-o", "json").json["items"]
    ]


def test_key_when_created_trusted_and_revoked_then_listed_so(root: Path, tmp_path: Path) -> None:
    made = marram.run("key", "create", "ours", "--out", tmp_path)
    id_ = signing.key_id(signing.public_key((tmp_path / "ours.pub").read_text()))
    assert id_ in made.out
    assert stat.S_IMODE((tmp_path / "ours.key").stat().st_mode) == 0o600
    assert _listed(root) == []

    assert marram.run("key", "trust", tmp_path / "ours.pub", "--root", root).code == 0
    assert _listed(root) == [("ours", "trusted")]
    assert marram.run("key", "revoke", "ours", "--root", root).code == 0
    assert _listed(root) == [("", "revoked")]
    assert marram.run("key", "trust", tmp_path / "ours.pub", "--root", root, "--name", "again").code == 0
    assert _listed(root) == [("again", "trusted")]


def test_key_when_it_exists_then_never_written_over(tmp_path: Path) -> None:
    assert marram.run("key", "create", "ours", "--out", tmp_path).code == 0
    before = (tmp_path / "ours.key").read_bytes()

    again = marram.run("key", "create", "ours", "--out", tmp_path)

    assert again.code == exits.ERROR
    assert "there already" in again.err
    assert (tmp_path / "ours.key").read_bytes() == before


def test_trust_when_the_file_is_no_public_key_then_refused(root: Path, tmp_path: Path) -> None:
    assert marram.run("key", "create", "ours", "--out", tmp_path).code == 0
    shown = marram.run("key", "trust", tmp_path / "ours.key", "--root", root)
    assert shown.code == exits.ERROR
    assert "PUBLIC KEY" in shown.err
    assert _listed(root) == []


def test_revoke_when_the_name_is_unknown_then_refused_but_an_unknown_id_is_taken(root: Path) -> None:
    assert marram.run("key", "revoke", "nobody", "--root", root).code == exits.ERROR
    assert marram.run("key", "revoke", "0" * 32, "--root", root).code == exits.OK
    assert _listed(root) == [("", "revoked")]


def _recipe(folder: Path, names: tuple[str, ...]) -> Path:
    manifest = {"Lifecycle": {}, "Artifacts": [{"URI": f"s3://b/{name}"} for name in names]}
    content = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "com.M", "ComponentVersion": "1.0.0"}
    path = folder / "recipe.json"
    path.write_text(json.dumps(content | {"Manifests": [manifest]}))
    return path


def test_sign_when_the_recipe_lacks_the_signature_files_then_told_which_lines_to_add(tmp_path: Path) -> None:
    assert marram.run("key", "create", "ours", "--out", tmp_path).code == 0
    (tmp_path / "model.json").write_text("{}")
    shown = marram.run("component", "sign", _recipe(tmp_path, ("model.json",)), "--key", tmp_path / "ours.key")
    assert shown.code == exits.ERROR
    assert f"URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/{signing.MANIFEST}" in shown.err


def test_sign_when_the_floor_is_above_the_version_or_the_key_is_none_then_refused(tmp_path: Path) -> None:
    assert marram.run("key", "create", "ours", "--out", tmp_path).code == 0
    (tmp_path / "model.json").write_text("{}")
    recipe = _recipe(tmp_path, ("model.json", signing.MANIFEST, signing.SIGNATURE))
    high = marram.run("component", "sign", recipe, "--key", tmp_path / "ours.key", "--floor", "2.0.0")
    public = marram.run("component", "sign", recipe, "--key", tmp_path / "ours.pub")
    assert (high.code, public.code) == (exits.ERROR, exits.ERROR)
    assert "would rule out 1.0.0 itself" in high.err
    assert "no private key" in public.err
    assert not (tmp_path / signing.MANIFEST).exists()


def test_signature_when_ed25519_then_verified_in_a_process_of_its_own() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = {"name": "theirs", "publicKey": base64.b64encode(der).decode()}
    trust = signing.read_trust({"keys": {signing.key_id(der): key}})
    manifest = signing.write_manifest("com.M", "1.0.0", {"model.json": "0" * 64})
    signature = signing.write_signature(signing.key_id(der), private.sign(manifest), signing.ED25519)

    found = signing.check("com.M", "1.0.0", {"model.json": "0" * 64}, manifest, signature, trust, verifier.verify)
    with pytest.raises(signing.NotTrustedError) as refusal:
        signing.check("com.M", "1.0.0", {}, manifest + b" ", signature, trust, verifier.verify)

    assert found is not None
    assert refusal.value.code == "SIGNATURE_NOT_VALID"
