"""Recipes: reading, the broken corpus, which manifest and lifecycle are used, and writing them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import errors, recipe

CORPUS = Path(__file__).parents[2] / "corpus" / "recipes"
EXPECTED: dict[str, dict[str, str]] = json.loads((CORPUS / "expected.json").read_text())

HEAD = 'RecipeFormatVersion: "2020-01-25"\nComponentName: com.example.A\nComponentVersion: 1.0.0\n'
FULL = """
recipeformatversion: 2020-01-25
COMPONENTNAME: com.example.turbine.Monitor
ComponentVersion: 1.2.0-rc.1+build
ComponentDescription: Watches one turbine
ComponentPublisher: Example
ComponentType: AWS.Greengrass.Generic
ComponentFavouriteColour: blue
ComponentConfiguration:
  DefaultConfiguration: {python: python3, speed: 10, since: 2014-01-01, door: on}
ComponentDependencies:
  marram.ModelAgent: {VersionRequirement: ^1.0.0}
  com.example.turbine.PowerCurveModel: {VersionRequirement: ">=1.0.0 <3.0.0", DependencyType: soft}
  com.example.Anything: {}
Manifests:
  - Name: arm
    Platform: {os: linux, architecture: /arm|aarch64/, runtime: "*", vendor: null}
    Selections: [arm]
    Artifacts:
      - Uri: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/monitor.py
        Permission: {read: all, Execute: Owner}
      - URI: S3://BUCKET_NAME/wheels.zip
        unarchive: zip
        Digest: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
        Algorithm: SHA-256
      - URI: docker:public.ecr.aws/example/image:1.0
  - {}
Lifecycle:
  INSTALL: {arm: {script: pip install x, timeout: 60}, all: "true"}
  Run: {RequiresPrivilege: false, script: python3 monitor.py}
"""


def read(text: str) -> recipe.Recipe:
    return recipe.read(text.encode(), "test.yaml")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_read_when_recipe_is_broken_then_says_where(name: str) -> None:
    with pytest.raises(errors.NucleusError) as caught:
        recipe.read((CORPUS / name).read_bytes(), name)

    assert {"code": caught.value.code, "message": caught.value.detail} == EXPECTED[name]
    assert caught.value.code in errors.CODES


def test_corpus_when_listed_then_every_file_has_its_message() -> None:
    assert sorted(path.name for path in CORPUS.iterdir() if path.name != "expected.json") == sorted(EXPECTED)


def test_read_when_recipe_is_full_then_all_of_it_is_there() -> None:
    found = read(FULL)

    assert (found.name, found.version) == ("com.example.turbine.Monitor", "1.2.0-rc.1+build")
    assert found.component_type == recipe.GENERIC
    assert found.configuration == {"python": "python3", "speed": 10, "since": "2014-01-01", "door": "on"}
    assert found.dependencies == {
        "marram.ModelAgent": recipe.Dependency("^1.0.0", "HARD"),
        "com.example.turbine.PowerCurveModel": recipe.Dependency(">=1.0.0 <3.0.0", "SOFT"),
        "com.example.Anything": recipe.Dependency("*", "HARD"),
    }
    script, wheels, image = found.manifests[0].artifacts
    assert (script.read, script.execute, script.unarchive) == ("ALL", "OWNER", "NONE")
    assert (wheels.unarchive, wheels.algorithm, wheels.read, wheels.execute) == ("ZIP", "SHA-256", "OWNER", "NONE")
    assert image.uri == "docker:public.ecr.aws/example/image:1.0"
    assert found.manifests[0].platform == {
        "os": "linux",
        "architecture": "/arm|aarch64/",
        "runtime": "*",
        "vendor": None,
    }


def test_read_when_given_as_json_then_the_same() -> None:
    found = read(FULL)
    as_json = json.dumps(recipe.describe(found))

    assert recipe.read(as_json.encode(), "test.json") == found


def test_read_when_json_has_tabs_and_surrogate_pairs_then_read() -> None:
    text = json.dumps(
        {**recipe.describe(read(HEAD + "Manifests: [{}]")), "ComponentDescription": "\U0001f300"}, indent="\t"
    )

    assert recipe.read(text.encode(), "test.json").description == "\U0001f300"


def test_read_when_larger_than_the_limit_then_refused_before_parsing() -> None:
    with pytest.raises(errors.NucleusError, match="1048577 bytes are more than the limit"):
        recipe.read(b"[" * (recipe.LIMIT_BYTES + 1), "test.yaml")


def test_describe_when_written_back_then_documented_spelling() -> None:
    described = recipe.describe(read(FULL))

    assert described["RecipeFormatVersion"] == "2020-01-25"
    assert described["Manifests"][0]["Artifacts"][1] == {
        "Uri": "S3://BUCKET_NAME/wheels.zip",
        "Digest": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "Algorithm": "SHA-256",
        "Unarchive": "ZIP",
        "Permission": {"Read": "OWNER", "Execute": "NONE"},
    }
    assert "ComponentFavouriteColour" not in described


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ({"os": "linux", "architecture": "amd64"}, "desktop"),
        ({"os": "linux", "architecture": "aarch64"}, "arm"),
        ({"os": "linux", "architecture": "arm"}, "arm"),
        ({"os": "linux", "architecture": "armadillo"}, "any linux"),
        ({"os": "linux"}, "any linux"),
        ({"os": "darwin"}, None),
        ({}, None),
    ],
)
def test_choose_when_manifests_claim_platforms_then_the_first_that_fits(
    platform: dict[str, str], name: str | None
) -> None:
    found = read(
        HEAD
        + """Manifests:
  - {Name: desktop, Platform: {os: linux, architecture: amd64}}
  - {Name: arm, Platform: {os: linux, architecture: /arm|aarch64/}}
  - {Name: any linux, Platform: {os: linux, architecture: "*"}}
"""
    )
    chosen = recipe.choose(found, platform)

    assert (chosen.name if chosen else None) == name


SELECTIONS = """Manifests:
  - {Name: own, Platform: {os: own}, Lifecycle: {Run: own run}}
  - {Name: linux, Platform: {os: linux}, Selections: [debian, linux]}
  - {Name: windows, Platform: {os: windows}, Selections: [windows]}
  - {Name: other}
Lifecycle:
  Install: {linux: {script: linux install, timeout: 5}, all: {Script: all install}, ignored: x}
  RUN: {windows: windows run}
  Shutdown: {Script: {debian: debian stop, all: all stop}}
  setenv: {Mode: fast, PATH: null}
"""


@pytest.mark.parametrize(
    ("os", "expected"),
    [
        ("own", {"run": "own run"}),
        (
            "linux",
            {
                "install": {"Script": "linux install", "Timeout": 5},
                "shutdown": {"Script": "debian stop"},
                "setenv": {"Mode": "fast", "PATH": None},
            },
        ),
        (
            "windows",
            {
                "install": {"Script": "all install"},
                "run": "windows run",
                "shutdown": {"Script": "all stop"},
                "setenv": {"Mode": "fast", "PATH": None},
            },
        ),
        (
            "plan9",
            {
                "install": {"Script": "all install"},
                "shutdown": {"Script": "all stop"},
                "setenv": {"Mode": "fast", "PATH": None},
            },
        ),
    ],
)
def test_lifecycle_when_manifest_selects_then_only_that_is_used(os: str, expected: dict[str, Any]) -> None:
    found = read(HEAD + SELECTIONS)
    manifest = recipe.choose(found, {"os": os})

    assert manifest is not None
    assert recipe.lifecycle(found, manifest) == expected


def test_lifecycle_when_a_variable_is_named_like_a_step_key_then_it_keeps_its_case() -> None:
    found = read(
        HEAD + "Manifests: [{}]\nLifecycle: {Setenv: {script: x, TIMEOUT: y}, RUN: {SCRIPT: z, setenv: {timeout: w}}}"
    )

    assert recipe.lifecycle(found, found.manifests[0]) == {
        "setenv": {"script": "x", "TIMEOUT": "y"},
        "run": {"Script": "z", "Setenv": {"timeout": "w"}},
    }


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/monitor.py", "monitor.py"),
        ("greengrass:abc-_123/monitor.py", "monitor.py"),
        ("greengrass:monitor.py", "monitor.py"),
        ("s3://b/k/..hidden", "..hidden"),
        ("s3://b/größe.txt", "größe.txt"),
    ],
)
def test_file_name_when_the_uri_is_good_then_its_last_segment(uri: str, name: str) -> None:
    assert recipe.file_name(recipe.Artifact(uri=uri)) == name


@pytest.mark.parametrize(
    "uri",
    ["s3://b/", "s3://b/a/..", "s3://b/.", "s3://b/a\\..\\b", "s3://b/a\0b", "s3://b/a\nb", "s3://b/" + "a" * 300],
)
def test_file_name_when_it_is_no_plain_name_then_refused(uri: str) -> None:
    with pytest.raises(errors.NucleusError) as caught:
        recipe.file_name(recipe.Artifact(uri=uri))

    assert caught.value.code == "ARTIFACT_URI_NOT_VALID"


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("", "EMPTY_ARTIFACT_URI"),
        ("monitor.py", "EMPTY_ARTIFACT_SCHEME"),
        ("https://example.com/x", "UNSUPPORTED_ARTIFACT_SCHEME"),
        ("s3://bucket", "S3_ARTIFACT_URI_NOT_VALID"),
        ("s3:bucket/key", "S3_ARTIFACT_URI_NOT_VALID"),
        ("docker:", "DOCKER_ARTIFACT_URI_NOT_VALID"),
    ],
)
def test_read_when_an_artifact_uri_is_bad_then_the_code_of_the_original(uri: str, code: str) -> None:
    with pytest.raises(errors.NucleusError) as caught:
        read(HEAD + f'Manifests: [{{Artifacts: [{{URI: "{uri}"}}]}}]')

    assert caught.value.code == code
