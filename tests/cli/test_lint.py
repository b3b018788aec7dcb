from __future__ import annotations

import json
from pathlib import Path

import pytest

from nucleus.cli import exits, lint
from tests.cli import marram

RECIPES = Path(__file__).parents[2] / "recipes"

GOOD = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: com.example.App
ComponentVersion: "1.0.0"
ComponentDependencies:
  com.example.PowerModel:
    VersionRequirement: ">=1.0.0 <2.0.0"
    DependencyType: SOFT
Manifests:
  - Platform:
      os: linux
    Lifecycle:
      Run:
        Script: python3 {artifacts:path}/app.py
    Artifacts:
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/app.py
"""


def _mistakes(text: str) -> list[lint.Mistake]:
    return lint.lint(text.encode(), "recipe.yaml")


def test_recipe_when_good_then_there_is_no_mistake() -> None:
    assert _mistakes(GOOD) == []


def test_recipe_when_keys_are_in_any_case_then_they_match() -> None:
    text = GOOD.replace("ComponentName", "componentname").replace("Script", "SCRIPT").replace("SOFT", "soft")

    assert _mistakes(text) == []


def test_recipe_when_json_then_it_is_linted_alike() -> None:
    recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "a", "ComponentVersion": "1", "Manifests": [{}]}

    (mistake,) = _mistakes(json.dumps(recipe, indent=1))

    assert (mistake.line, mistake.key, mistake.code) == (4, "ComponentVersion", "COMPONENT_VERSION_NOT_VALID")


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        ("ComponentVersion:", "ComponentVersoin:", 3, "ComponentVersoin", "did you mean ComponentVersion?"),
        ('"1.0.0"', '"1.0"', 3, "ComponentVersion", "1.0"),
        ("com.example.App", "com example", 2, "ComponentName", "1 to 128"),
        ('">=1.0.0 <2.0.0"', '">>1"', 6, "ComponentDependencies.com.example.PowerModel.VersionRequirement", ">>1"),
        ("SOFT", "WEAK", 7, "ComponentDependencies.com.example.PowerModel.DependencyType", "HARD or SOFT"),
        ("        Script:", "        Skript:", 13, "Manifests[0].Lifecycle.Run.Skript", "did you mean Script?"),
        ("      Run:", "      Rum:", 12, "Manifests[0].Lifecycle.Rum", "did you mean Run?"),
        ("s3://", "ftp://", 15, "Manifests[0].Artifacts[0].URI", "s3"),
        ("os: linux", "os: [linux]", 10, "Manifests[0].Platform.os", "must be text"),
        ("{artifacts:path}", "{artifacts:paht}", 13, "Manifests[0].Lifecycle.Run.Script", "no recipe variable"),
        ("{artifacts:path}", "{com.x:artifacts:path}", 13, "Manifests[0].Lifecycle.Run.Script", "no dependency"),
    ],
)
def test_recipe_when_it_has_a_mistake_then_file_line_and_key_are_told(
    old: str, new: str, line: int, key: str, said: str
) -> None:
    found = _mistakes(GOOD.replace(old, new, 1))

    assert [(one.file, one.line, one.key) for one in found if said in one.message] == [("recipe.yaml", line, key)]


def test_recipe_when_it_has_many_mistakes_then_all_are_told_in_the_order_of_lines() -> None:
    found = _mistakes(
        GOOD.replace("SOFT", "WEAK").replace("linux", "[]").replace("1.0.0", "x", 1).replace("  Run", "  Ran")
    )

    assert [one.line for one in found] == [3, 7, 10, 12]


def test_recipe_when_required_keys_are_missing_then_each_is_named() -> None:
    missing = {one.message for one in _mistakes('ComponentName: "a"')}

    assert missing == {f"the key {key} is missing" for key in ("RecipeFormatVersion", "ComponentVersion", "Manifests")}


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2", "\x00", "{", '{"a": }'])
def test_recipe_when_unreadable_then_it_is_one_mistake_and_no_crash(text: str) -> None:
    assert len(_mistakes(text)) >= 1


def test_recipe_when_too_large_then_the_limit_is_told() -> None:
    text = GOOD + "#" * lint.LIMIT_BYTES

    assert "at most 16000 bytes" in _mistakes(text)[0].message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{artifacts:path}/app.py", "{com.example.PowerModel:artifacts:path}/model.onnx"),
        ("python3 {artifacts:path}", "cat ../../packages/artifacts/com.example.PowerModel/1.0.0/model.onnx;"),
        ('">=1.0.0 <2.0.0"', '"1.0.0"'),
    ],
)
def test_application_when_it_names_a_models_path_or_version_then_it_is_pinned(old: str, new: str) -> None:
    (mistake,) = _mistakes(GOOD.replace(old, new))

    assert mistake.code == "MODEL_PATH_PINNED"
    assert "com.example.PowerModel" in mistake.message


def test_model_when_known_by_its_recipe_then_its_name_does_not_matter() -> None:
    text = GOOD.replace("com.example.PowerModel", "com.example.Curve").replace('">=1.0.0 <2.0.0"', '"=1.2.3"').encode()

    assert lint.lint(text, "x") == []
    assert [one.code for one in lint.lint(text, "x", {"com.example.Curve"})] == ["MODEL_PATH_PINNED"]


def test_recipes_of_the_repository_when_linted_then_all_are_good() -> None:
    shown = marram.run("component", "lint", *sorted(RECIPES.glob("*.yaml")))

    assert shown.out == ""
    assert shown.code == exits.OK


def test_lint_when_asked_for_json_then_each_mistake_is_an_item(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(GOOD.replace("SOFT", "WEAK"))

    shown = marram.run("component", "lint", file, "-o", "json")

    assert shown.code == exits.ERROR
    (item,) = shown.json["items"]
    assert (item["file"], item["line"], item["code"]) == (str(file), 7, "RECIPE_NOT_VALID")
