"""Signatures are judged before any script runs, on a device that trusts a key. Keys and signatures come from the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import signing
from nucleus.store import trust
from tests.cli import marram

from .device import Device

NAME = "com.example.Model"
RAN = "ran"


class Author:
    """Makes keys, and versions of a model component in the device's store."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.folder = folder
        for name in ("ours", "theirs"):
            assert marram.run("key", "create", name, "--out", folder).code == 0

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def id_of(self, name: str) -> str:
        return signing.key_id(signing.public_key((self.folder / f"{name}.pub").read_text()))

    def trust(self, name: str = "ours", *more: str) -> None:
        shown = marram.run("key", "trust", self.folder / f"{name}.pub", "--root", self.device.places.root, *more)
        assert shown.code == 0, shown.err

    def revoke(self, name: str = "ours") -> None:
        assert marram.run("key", "revoke", name, "--root", self.device.places.root).code == 0

    def artifacts(self, version: str) -> Path:
        return self.device.places.artifacts(NAME, version)

    def make(
        self, version: str, *, key: str = "ours", model: bytes = b"weights", options: tuple[str, ...] = ()
    ) -> Path:
        """A version with its artifacts in the store; without a key it has no signature."""
        folder = self.artifacts(version)
        folder.mkdir(parents=True)
        (folder / "model.json").write_bytes(b"{}")
        (folder / "model.onnx").write_bytes(model)
        names = ["model.json", "model.onnx", *((signing.MANIFEST, signing.SIGNATURE) if key else ())]
        recipe: dict[str, Any] = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": NAME,
            "ComponentVersion": version,
            "Manifests": [
                {
                    "Lifecycle": {"Startup": f"touch {self.device.places.root}/{RAN}-{version}"},
                    "Artifacts": [{"URI": f"s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/{one}"} for one in names],
                }
            ],
        }
        self.device.publish(recipe)
        if key:
            source = self.device.places.root / "published" / f"{NAME}-{version}.yaml"
            signed = marram.run("component", "sign", source, "--key", self.key(key), "--artifacts", folder, *options)
            assert signed.code == 0, signed.err
        return folder

    def ran(self, version: str) -> bool:
        return (self.device.places.root / f"{RAN}-{version}").exists()


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(Device(tmp_path / "device"), tmp_path / "keys")


async def test_deployment_when_signed_by_a_trusted_key_then_succeeds(author: Author) -> None:
    author.trust()
    author.make("1.0.0")
    async with author.device.running():
        result = await author.device.deploy({NAME: "1.0.0"})
    assert result.status == "SUCCEEDED", result
    assert author.ran("1.0.0")


async def test_deployment_when_nobody_is_trusted_then_unsigned_models_run(author: Author) -> None:
    author.make("1.0.0", key="")
    async with author.device.running():
        assert (await author.device.deploy({NAME: "1.0.0"})).status == "SUCCEEDED"


def _swap(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"other weights")


def _truncate(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"weig")


def _foreign_manifest(folder: Path) -> None:
    content = (folder / signing.MANIFEST).read_bytes()
    (folder / signing.MANIFEST).write_bytes(content.replace(b"1.0.0", b"1.0.1"))


def _nothing(_: Path) -> None:
    return None


@pytest.mark.parametrize(
    ("code", "key", "options", "attack"),
    [
        ("SIGNATURE_MISSING", "", (), _nothing),
        ("SIGNING_KEY_UNKNOWN", "theirs", (), _nothing),
        ("ARTIFACT_CHANGED", "ours", (), _swap),
        ("ARTIFACT_CHANGED", "ours", (), _truncate),
        ("SIGNATURE_NOT_VALID", "ours", (), _foreign_manifest),
        ("WRONG_DEVICE_CLASS", "ours", ("--for-class", "gateway"), _nothing),
    ],
    ids=["unsigned", "wrong key", "swapped artifact", "truncated artifact", "edited manifest", "another class"],
)
async def test_deployment_when_not_to_be_trusted_then_fails_with_the_code_and_nothing_ran(
    author: Author, code: str, key: str, options: tuple[str, ...], attack: Callable[[Path], None]
) -> None:
    author.trust("ours", "--device-class", "turbine")
    attack(author.make("1.0.0", key=key, options=options))
    async with author.device.running():
        result = await author.device.deploy({NAME: "1.0.0"})

    assert (result.status, result.detailed) == ("FAILED", "FAILED_NO_STATE_CHANGE")
    assert code in result.stack
    assert result.types() == ("PERMISSION_ERROR",)
    assert not author.ran("1.0.0")


async def test_key_when_revoked_then_what_it_signed_is_refused_and_another_key_serves(author: Author) -> None:
    author.trust()
    author.make("1.0.0")
    async with author.device.running():
        assert (await author.device.deploy({NAME: "1.0.0"})).status == "SUCCEEDED"
        author.revoke()
        author.make("1.1.0")
        refused = await author.device.deploy({NAME: "1.1.0"})
        author.trust("theirs")
        author.make("1.2.0", key="theirs")
        assert (await author.device.deploy({NAME: "1.2.0"})).status == "SUCCEEDED"

    assert "SIGNING_KEY_REVOKED" in refused.stack


async def test_floor_when_raised_then_older_versions_are_refused_and_those_at_or_above_it_roll_back(
    author: Author,
) -> None:
    author.trust()
    async with author.device.running():
        for version in ("1.0.0", "1.1.0", "1.2.0", "1.1.0"):
            if not author.artifacts(version).exists():  # what was cleaned up comes again
                author.make(version, options=("--floor", "1.1.0") if version == "1.2.0" else ())
            assert (await author.device.deploy({NAME: version})).status == "SUCCEEDED", version
        author.make("1.0.1")
        replay = await author.device.deploy({NAME: "1.0.1"})

    assert "BELOW_SECURITY_FLOOR" in replay.stack
    assert trust.floors(author.device.places.root) == {NAME: "1.1.0"}


async def test_artifact_when_tampered_after_it_was_installed_then_the_next_deployment_of_it_is_refused(
    author: Author,
) -> None:
    author.trust()
    folder = author.make("1.0.0")
    async with author.device.running():
        assert (await author.device.deploy({NAME: "1.0.0"})).status == "SUCCEEDED"
        _swap(folder)
        again = await author.device.deploy({NAME: "1.0.0"})
    assert "ARTIFACT_CHANGED" in again.stack


@pytest.mark.parametrize("content", [b"no json", b"[]", b'{"keys": {"x": {}}}'])
async def test_trust_when_its_file_is_damaged_then_no_model_is_accepted_and_other_components_are(
    author: Author, content: bytes
) -> None:
    author.make("1.0.0")
    (author.device.places.root / trust.FILE).write_bytes(content)
    author.device.publish(
        {"RecipeFormatVersion": "2020-01-25", "ComponentName": "App", "ComponentVersion": "1.0.0"}
        | {"Manifests": [{"Lifecycle": {"Startup": "true"}}]}
    )
    async with author.device.running():
        refused = await author.device.deploy({NAME: "1.0.0"})
        assert (await author.device.deploy({"App": "1.0.0"})).status == "SUCCEEDED"
    assert "SIGNATURE_NOT_VALID" in refused.stack
    assert trust.FILE in refused.cause
