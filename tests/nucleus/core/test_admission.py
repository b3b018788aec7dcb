"""What is refused by what it is, and the nucleus's own version that nobody asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nucleus.core import admission, builtin, errors, negotiate, recipe, release

LINUX = {"os": "linux"}


def candidate(name: str, version: str = "1.0.0", **more: Any) -> negotiate.Candidate:
    data = {"RecipeFormatVersion": "2020-01-25", "ComponentName": name, "ComponentVersion": version, "Manifests": [{}]}
    return negotiate.Candidate(name, version, recipe.read(json.dumps(data | more).encode(), "test"))


def image(os: str) -> dict[str, Any]:
    return {"Manifests": [{"Platform": {"os": os}, "Artifacts": [{"URI": "docker:example/image:1"}]}, {}]}


def refused(*resolved: negotiate.Candidate, targets: tuple[str, ...] = (), running: str = release.VERSION) -> str:
    try:
        admission.check({one.name: one for one in resolved}, targets, LINUX, running=running)
    except errors.NucleusError as error:
        return f"{error.code} {error.detail}"
    return ""


@pytest.mark.parametrize(
    ("more", "code", "next_step"),
    [
        (image("linux"), "MISSING_DOCKER_APPLICATION_MANAGER", "ship the program's files"),
        ({"ComponentType": recipe.LAMBDA}, "COMPONENT_LOAD_FAILURE", "as a generic component"),
        ({"ComponentType": recipe.PLUGIN}, "CUSTOM_PLUGIN_NOT_SUPPORTED", "replace it by a generic component"),
    ],
)
def test_check_when_it_cannot_be_run_here_then_refused_with_code_and_next_step(
    more: dict[str, Any], code: str, next_step: str
) -> None:
    told = refused(candidate("com.example.Good"), candidate("com.example.A", "2.1.0", **more))

    assert told.startswith(f"{code} cannot install com.example.A 2.1.0")
    assert next_step in told


def test_check_when_the_image_is_for_another_platform_then_admitted() -> None:
    assert refused(candidate("com.example.A", **image("windows"))) == ""


def test_check_when_it_is_a_built_in_plugin_then_admitted() -> None:
    assert refused(candidate(builtin.SHADOW_MANAGER, ComponentType=recipe.PLUGIN)) == ""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (admission.DOCKER_MANAGER, "MISSING_DOCKER_APPLICATION_MANAGER"),
        ("aws.greengrass.LambdaLauncher", "COMPONENT_LOAD_FAILURE"),
    ],
)
def test_refuse_part_when_only_good_for_what_cannot_be_run_then_names_who_requires_it(name: str, code: str) -> None:
    with pytest.raises(errors.NucleusError, match=f"cannot install {name}, which com.example.A requires") as caught:
        admission.refuse_part(negotiate.Ask(name, (("com.example.A", "^2.0.0"),)))

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("wanted", "targets", "ok"),
    [
        ("1.2.9", (), True),
        ("1.3.0", (), False),
        ("1.1.0", (), False),
        ("2.2.0", ("com.example.A",), False),
        ("1.3.0", (release.COMPONENT,), True),
    ],
)
def test_check_when_the_nucleus_would_change_then_minor_and_major_only_if_the_deployment_names_it(
    wanted: str, targets: tuple[str, ...], ok: bool
) -> None:
    told = refused(candidate(release.COMPONENT, wanted, ComponentType=recipe.NUCLEUS), targets=targets, running="1.2.3")

    assert told.startswith(
        "" if ok else "UNAUTHORIZED_NUCLEUS_MINOR_VERSION_UPDATE cannot change the nucleus from 1.2.3"
    )
    assert (told == "") is ok
