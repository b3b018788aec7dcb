from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from nucleus.cli import artifacts, exits
from nucleus.core import recipe

RECIPE = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: com.example.App
ComponentVersion: "1.0.0"
Manifests:
  - Artifacts:
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/app.py
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/data.zip
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/marram_ipc.py
"""


def _read() -> recipe.Recipe:
    return recipe.read(RECIPE.encode(), "recipe.yaml")


def test_collect_when_a_folder_stands_for_an_archive_then_it_is_zipped(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("print(1)")
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "x.txt").write_text("x")

    found = artifacts.collect(_read(), [tmp_path], tmp_path / "staging")

    assert list(found) == ["app.py", "data.zip", "marram_ipc.py"]
    assert zipfile.ZipFile(found["data.zip"]).namelist() == ["inner/x.txt"]
    assert b"class Client" in found["marram_ipc.py"].read_bytes()


def test_collect_when_files_are_missing_then_all_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(exits.Failure, match=r"com\.example\.App 1\.0\.0 .*: app\.py, data\.zip"):
        artifacts.collect(_read(), [tmp_path], tmp_path / "staging")


def test_archive_when_made_again_then_its_bytes_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "a.pyc").write_bytes(b"x")
    (folder / "run.sh").write_text("#!/bin/sh")
    (folder / "run.sh").chmod(0o755)

    artifacts.archive(folder, tmp_path / "1.zip")
    os.utime(folder / "run.sh", (1, 1))
    artifacts.archive(folder, tmp_path / "2.zip")

    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    (entry,) = zipfile.ZipFile(tmp_path / "1.zip").infolist()
    assert entry.external_attr >> 16 == 0o755


def test_stage_when_laid_out_then_it_is_what_local_deployments_want(tmp_path: Path) -> None:
    source = tmp_path / "recipe.yaml"
    source.write_text(RECIPE)
    (tmp_path / "app.py").write_text("print(1)")

    recipes, files = artifacts.stage(_read(), source, {"app.py": tmp_path / "app.py"}, tmp_path / "staging")

    assert [path.name for path in recipes.iterdir()] == ["com.example.App-1.0.0.yaml"]
    assert (files / "com.example.App" / "1.0.0" / "app.py").read_text() == "print(1)"


def test_recipe_when_it_cannot_be_read_then_file_and_line_are_told(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace('"1.0.0"', "one"))

    with pytest.raises(exits.Failure, match=r"recipe\.yaml.*line 3"):
        artifacts.read_recipe(file)
