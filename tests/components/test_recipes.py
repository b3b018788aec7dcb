"""The recipes of this repository: readable, complete, and shaped as design.md 4.1 decides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import recipe
from tests.components import parts

ALL = sorted(path.stem for path in parts.RECIPES.glob("*.yaml"))
PATTERNS = ("SensorPublisher", "SensorSubscriber", "SetpointListener", "LampShadow")
FOLDERS: dict[str, Callable[[str], Path]] = {
    "com.example.turbine.Monitor": lambda version: parts.MONITOR.parent / version,
    "com.example.turbine.PowerCurveModel": lambda version: parts.MODEL / version,
    "marram.ModelAgent": lambda version: parts.AGENT,
    "com.example.vision.Camera": lambda _: parts.REPOSITORY / "components/vision",
    "com.example.vision.Detector": lambda _: parts.REPOSITORY / "components/vision",
    **{f"com.example.patterns.{name}": lambda _: parts.REPOSITORY / "components/patterns" for name in PATTERNS},
}
BUILT = "com.example.vision.DetectorModel"  # its files are made by tools/vision_models.py (test_vision_models.py)
LINUX = {"os": "linux", "architecture": "amd64"}


def read(stem: str) -> recipe.Recipe:
    return recipe.read((parts.RECIPES / f"{stem}.yaml").read_bytes(), stem)


def scripts(stem: str) -> str:
    found = read(stem)
    manifest = recipe.choose(found, LINUX)
    assert manifest is not None
    return json.dumps(recipe.lifecycle(found, manifest))


@pytest.mark.parametrize("stem", ALL)
def test_recipe_when_read_then_its_name_is_the_files_and_its_artifacts_exist(stem: str) -> None:
    found = read(stem)

    assert f"{found.name}-{found.version}" == stem
    for name in () if found.name == BUILT else parts.artifact_names(stem):
        source: Path = FOLDERS[found.name](found.version) / name
        assert name in parts.OURS or source.is_file()


@pytest.mark.parametrize(
    "stem", [stem for stem in ALL if not stem.startswith(("com.example.Hello", "com.example.Ticker", BUILT))]
)
def test_artifacts_when_python_then_every_module_they_import_is_there(stem: str, tmp_path: Path) -> None:
    found = read(stem)
    files = parts.publish(stem, FOLDERS[found.name](found.version), tmp_path / "files")
    programs = sorted(path.stem for path in files.glob("*.py"))

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; [__import__(name) for name in {programs}]; print(*sys.modules)"],
        cwd=files,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert not {"nucleus", "cloud", "msgspec", "boto3"} & {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("stem", [stem for stem in ALL if stem.startswith((f"{parts.MODEL_NAME}-", f"{BUILT}-"))])
def test_model_when_its_recipe_is_read_then_it_hands_over_to_the_agent(stem: str) -> None:
    version = stem.rpartition("-")[2]

    assert read(stem).dependencies["marram.ModelAgent"].kind == "HARD"
    found: Any = json.loads(scripts(stem))
    for phase, verb in (("startup", "offer"), ("shutdown", "release"), ("uninstall", "withdraw")):
        assert f"hand_over.py {verb} " in found[phase]["Script" if "Script" in found[phase] else "script"]
        assert f"--version {version} " in json.dumps(found[phase])


@pytest.mark.parametrize(
    ("stem", "model"),
    [
        ("com.example.turbine.Monitor-1.0.0", parts.MODEL_NAME),
        ("com.example.turbine.Monitor-1.1.0", parts.MODEL_NAME),
        ("com.example.vision.Detector-1.0.0", BUILT),
    ],
)
def test_application_when_its_recipe_is_read_then_a_new_model_does_not_concern_it(stem: str, model: str) -> None:
    dependencies = read(stem).dependencies

    assert {dependencies[name].kind for name in ("marram.ModelAgent", model)} == {"SOFT"}
    assert model.rpartition(".")[2] not in scripts(stem)
    assert "ModelAgent:" not in scripts(stem)
