"""The corpus of broken input: every piece has its message, none ends the nucleus or leaves a file behind.

Readers are also fed random bytes and random changes of good input; they answer or raise their own error.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import desired, document, errors, local, recipe
from nucleus.host import files
from nucleus.wire import eventstream, rpc
from tests.nucleus.actors import device as devices

CORPUS = Path(__file__).parent
ARCHIVE_LIMIT_BYTES = 1_000_000
GOOD_RECIPE = devices.recipe("com.example.A", "1.0.0", {"Install": "true", "Run": {"Script": "true", "Timeout": 5}})
GOOD_DOCUMENT = {
    "deploymentId": "d1",
    "configurationArn": "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/turbines:2",
    "creationTimestamp": 1,
    "requiredCapabilities": [],
    "components": {"com.example.A": {"version": "1.0.0", "configurationUpdate": {"merge": {"a": 1}, "reset": [""]}}},
    "componentUpdatePolicy": {"timeout": 60, "action": "NOTIFY_COMPONENTS"},
    "marram": {"deadline_s": "5"},
}


def expected(kind: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((CORPUS / kind / "expected.json").read_text())
    return found


def listed(kind: str) -> list[Any]:
    return [pytest.param(name, told, id=name) for name, told in expected(kind).items()]


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_corpus_when_counted_then_at_least_sixty_and_every_file_has_its_message() -> None:
    total = 0
    for kind in ("recipes", "documents", "archives"):
        names = {path.name for path in (CORPUS / kind).iterdir()} - {"expected.json"}
        assert names == set(expected(kind))
        total += len(names)

    assert total >= 60


@pytest.mark.parametrize(("name", "told"), listed("documents"))
def test_document_when_it_is_broken_then_says_where(name: str, told: dict[str, str]) -> None:
    with pytest.raises(errors.NucleusError) as caught:
        document.parse_cloud((CORPUS / "documents" / name).read_bytes())

    assert {"code": caught.value.code, "message": caught.value.detail} == told
    assert caught.value.code in errors.CODES


@pytest.mark.parametrize(("name", "told"), listed("archives"))
def test_archive_when_it_is_broken_then_says_which_entry_and_leaves_nothing(
    tmp_path: Path, name: str, told: dict[str, str]
) -> None:
    archive = Path(shutil.copy(CORPUS / "archives" / name, tmp_path))

    with pytest.raises(errors.NucleusError) as caught:
        files.unzip(archive, tmp_path / "out" / "x", limit_bytes=ARCHIVE_LIMIT_BYTES)

    assert {"code": caught.value.code, "message": caught.value.detail.replace(f"{tmp_path}/", "")} == told
    assert below(tmp_path) <= {name, "out"}


async def test_device_when_every_broken_recipe_is_deployed_then_refused_and_no_file_is_left(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(GOOD_RECIPE)
    async with device.running():
        before = below(device.places.root / "packages")
        for name, told in expected("recipes").items():
            folder = tmp_path / "authored" / name
            folder.mkdir(parents=True)
            shutil.copy(CORPUS / "recipes" / name, folder)
            request = local.LocalRequest(add={"com.example.A": "1.0.0"}, recipe_directory=str(folder))
            with pytest.raises(errors.NucleusError) as caught:
                await device.deployer.create_local(request, "cli")
            assert caught.value.code == told["code"]
            assert name in caught.value.detail
        assert below(device.places.root / "packages") == before
        assert device.deployer.list() == []

        assert (await device.deploy({"com.example.A": "1.0.0"})).status == "SUCCEEDED"


async def test_device_when_every_broken_archive_is_deployed_then_no_state_change_and_nothing_unpacked(
    tmp_path: Path,
) -> None:
    names = sorted(set(expected("archives")) - {"bomb.zip"})  # the bomb is small for a component store's limit
    device = devices.Device(tmp_path / "root")
    recipes, artifacts = tmp_path / "authored", tmp_path / "artifacts"
    recipes.mkdir()
    for number, name in enumerate(names):
        component = f"com.example.Archive{number}"
        folder = artifacts / component / "1.0.0"
        folder.mkdir(parents=True)
        shutil.copy(CORPUS / "archives" / name, folder)
        manifest = {"Artifacts": [{"Uri": f"s3://bucket/{name}", "Unarchive": "ZIP"}], "Lifecycle": {"Run": "true"}}
        made = devices.recipe(component, "1.0.0", {}) | {"Manifests": [manifest]}
        (recipes / f"{component}.yaml").write_text(yaml.safe_dump(made))
    directories = {"recipe_directory": str(recipes), "artifacts_directory": str(artifacts)}
    async with device.running():
        for number, name in enumerate(names):
            request = local.LocalRequest(add={f"com.example.Archive{number}": "1.0.0"}, **directories)
            result = await device.end_of(await device.deployer.create_local(request, "cli"))

            assert result.detailed == "FAILED_NO_STATE_CHANGE"
            assert result.stack == ("DEPLOYMENT_FAILURE", "IO_UNZIP_ERROR")
            assert name in result.cause
    unarchived = device.places.root / "packages" / "artifacts-unarchived"
    assert not [path for path in unarchived.rglob("*") if path.is_file()]
    assert desired.installed(device.configuration.tree) == {}


# ---- random input ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def changed(good: Any, places: list[int], values: list[Any]) -> Any:
    """A copy with other values at some places, counted through the whole structure."""
    copy = json.loads(json.dumps(good))
    spots: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            spots.append((node, key))
            collect(node[key])

    collect(copy)
    for place, value in zip(places, values, strict=False):
        node, key = spots[place % len(spots)]
        node[key] = value
    return copy


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_readers_when_bytes_are_random_then_read_or_their_own_error(data: bytes) -> None:
    with contextlib.suppress(errors.NucleusError):
        recipe.read(data, "fuzz")
    with contextlib.suppress(errors.NucleusError):
        document.parse_cloud(data)
    with contextlib.suppress(eventstream.FrameError):
        list(eventstream.Decoder().feed(data))
    with contextlib.suppress(ValueError, RecursionError):
        rpc.load(data)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=3), st.lists(JSON, min_size=1, max_size=3), st.booleans())
def test_recipe_when_parts_of_it_are_replaced_then_read_or_refused_by_name(
    places: list[int], values: list[Any], as_json: bool
) -> None:
    made = changed(GOOD_RECIPE, places, values)
    text = json.dumps(made) if as_json else yaml.safe_dump(made)
    try:
        found = recipe.read(text.encode(), "fuzz.yaml")
    except errors.NucleusError as error:
        assert error.code in errors.CODES  # noqa: PT017
        assert "fuzz.yaml" in error.detail  # noqa: PT017
        return
    manifest = recipe.choose(found, {"os": "linux"})
    if manifest is not None:
        recipe.lifecycle(found, manifest)
    again = recipe.read(json.dumps(recipe.describe(found)).encode(), "again.json")
    assert again == found


@given(st.lists(st.integers(0, 50), min_size=1, max_size=3), st.lists(JSON, min_size=1, max_size=3))
def test_document_when_parts_of_it_are_replaced_then_read_or_refused(places: list[int], values: list[Any]) -> None:
    try:
        document.read_cloud(changed(GOOD_DOCUMENT, places, values))
    except errors.NucleusError as error:
        assert error.code == "DEPLOYMENT_DOCUMENT_NOT_VALID"  # noqa: PT017


@given(st.integers(0, 400), st.binary(min_size=1, max_size=20))
def test_frames_when_bytes_are_overwritten_then_the_same_frames_or_an_error(at: int, noise: bytes) -> None:
    block = eventstream.string("name", "value") + eventstream.int32(":stream-id", 7)
    stream = bytearray(b"".join(eventstream.encode(block, bytes([number]) * 60) for number in range(3)))
    stream[at : at + len(noise)] = noise
    found = []
    with contextlib.suppress(eventstream.FrameError):
        for frame in eventstream.Decoder().feed(bytes(stream)):
            found.append(frame.payload[:1])
            eventstream.read_headers(frame.headers)

    assert len(found) <= 4
