"""`component publish --with-wheels`: pip builds the wheels of a requirements.txt; here they are local, so nobody is asked."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from urllib import parse

import pytest

from cloud.cli import session
from nucleus.cli import exits
from tests.cli import marram

RECIPE = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: {name}
ComponentVersion: "1.0.0"
Manifests:
  - Lifecycle:
      Run: echo {{artifacts:decompressedPath}}
    Artifacts:
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/wheels.zip
        Unarchive: ZIP
"""


def _wheel(folder: Path, project: str) -> Path:
    """A wheel with one module, as PEP 427 says."""
    info = f"{project}-1.0.dist-info"
    files = {
        f"{project}.py": b"ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in files.items()}
    record = [f"{name},sha256={digests[name].rstrip(b'=').decode()},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]).encode()
    path = folder / f"{project}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


@pytest.fixture
def component(tmp_path: Path, name: str) -> Path:
    """The folder of a component whose one artifact is its wheels."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(name=name))
    return tmp_path


def test_publish_with_wheels_when_required_ones_are_local_then_their_archive_is_the_artifact(
    service: Path, component: Path, name: str
) -> None:
    local = component / "local"
    local.mkdir()
    wheels = [_wheel(local, project) for project in ("first_thing", "second_thing")]
    (component / "requirements.txt").write_text("--no-index\n" + "".join(f"{wheel}\n" for wheel in wheels))

    shown = marram.run("component", "publish", component / "recipe.yaml", "--with-wheels", "--root", service)

    assert shown.code == exits.OK, shown.err
    assert f"Published {name} 1.0.0: 1 artifacts" in shown.out
    cloud = session.open_session(service)
    arn = f"arn:aws:greengrass:{cloud.region}:{cloud.account}:components:{name}:versions:1.0.0"
    recipe = cloud.client("greengrassv2").get_component(arn=arn, recipeOutputFormat="JSON")["recipe"].decode()
    place = parse.urlsplit(next(part for part in recipe.split('"') if part.startswith("s3://")))
    stored = cloud.client("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    archive = zipfile.ZipFile(io.BytesIO(stored))
    assert archive.namelist() == [wheel.name for wheel in wheels]
    assert archive.read(wheels[0].name) == wheels[0].read_bytes()


@pytest.mark.parametrize(
    ("requirements", "words"),
    [("", "there is no requirements.txt"), ("--no-index\nnot-there==1.0\n", "not-there==1.0")],
    ids=["no requirements", "not to be had"],
)
def test_publish_with_wheels_when_they_cannot_be_made_then_the_reason_is_told_and_nothing_is_published(
    service: Path, component: Path, name: str, requirements: str, words: str
) -> None:
    if requirements:
        (component / "requirements.txt").write_text(requirements)

    shown = marram.run("component", "publish", component / "recipe.yaml", "--with-wheels", "--root", service)

    assert (shown.code, words in shown.err) == (exits.ERROR, True), shown.err
    versions = marram.run("component", "versions", name, "--root", service, "-o", "json")
    assert versions.code != exits.OK or versions.json["items"] == []
