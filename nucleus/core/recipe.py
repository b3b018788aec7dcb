"""Recipes of format 2020-01-25: what a component version consists of, read from YAML or JSON.

Keys and enumerated values match whatever their case, unknown keys are ignored, and every error names component,
version, key and line. Source: the recipe reference; spec/nucleus.md 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import component, errors, markup, recipe_artifact, recipe_fields, recipe_platform, version

FORMAT = "2020-01-25"
LIMIT_BYTES = 1 << 20  # what the device accepts; the service holds authors to 16,000 bytes
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
GENERIC, PLUGIN, NUCLEUS, LAMBDA = TYPES = tuple(
    f"aws.greengrass.{kind}" for kind in ["generic", "plugin", "nucleus", "lambda"]
)

_SHOWN = re.compile(rb"component(name|version)[\"']?\s*:\s*[\"']?([\w.+-]{1,128})", re.IGNORECASE)
_STEPS = {"install", "startup", "run", "shutdown", "recover", "bootstrap", "uninstall"}
_STEP_KEYS = ("Script", "RequiresPrivilege", "Timeout", "Setenv", "Skipif", "BootstrapOnRollback")


class Dependency(Struct, frozen=True):
    """`requirement` is an NPM range; `kind` is HARD or SOFT."""

    requirement: str = "*"
    kind: str = component.HARD


class Artifact(Struct, frozen=True, kw_only=True):
    """One file or image; `digest` is base64 of the raw hash, empty in recipes that no service has seen.

    `unarchive` is NONE or ZIP; `read` and `execute` are NONE, OWNER or ALL.
    """

    uri: str
    digest: str = ""
    algorithm: str = ""
    unarchive: str = "NONE"
    read: str = "OWNER"
    execute: str = "NONE"


class Manifest(Struct, frozen=True, kw_only=True):
    """What is special on one platform; a platform claim of None is met by every device."""

    name: str = ""
    platform: dict[str, str | None] = {}
    lifecycle: dict[str, Any] = {}
    selections: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


class Recipe(Struct, frozen=True, kw_only=True):
    """One component version; `configuration` is DefaultConfiguration, `lifecycle` the recipe-level one as written."""

    name: str
    version: str
    description: str = ""
    publisher: str = ""
    component_type: str = GENERIC
    configuration: dict[str, Any] = {}
    dependencies: dict[str, Dependency] = {}
    manifests: tuple[Manifest, ...] = ()
    lifecycle: dict[str, Any] = {}


def choose(recipe: Recipe, platform: Mapping[str, str]) -> Manifest | None:
    """The first manifest whose claims the device's attributes meet, or None."""
    return next((each for each in recipe.manifests if recipe_platform.matches(each.platform, platform)), None)


def lifecycle(recipe: Recipe, manifest: Manifest) -> dict[str, Any]:
    """The lifecycle that is used on the platform of `manifest`.

    Phase names are lower-cased; keys of step objects get the spelling of the recipe reference (`Script`, `Timeout`).
    """
    chosen = manifest.lifecycle
    if not chosen:
        keywords = {selection for each in recipe.manifests for selection in each.selections}
        chosen = recipe_platform.select(recipe.lifecycle, keywords, manifest.selections)
    return {phase.lower(): _step(phase.lower(), step) for phase, step in chosen.items()}


def _step(phase: str, step: Any) -> Any:
    if phase not in _STEPS or not isinstance(step, dict):
        return step
    spelling = {key.lower(): key for key in _STEP_KEYS}
    return {spelling.get(key.lower(), key): value for key, value in step.items()}


def file_name(artifact: Artifact) -> str:
    """The name of the artifact's file on the device. Raises NucleusError ARTIFACT_URI_NOT_VALID."""
    return recipe_artifact.file_name(artifact.uri)


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a JSON-able value in the documented spelling, with `Uri` for artifacts as devices expect it."""
    described: dict[str, Any] = {
        "RecipeFormatVersion": FORMAT,
        "ComponentName": recipe.name,
        "ComponentVersion": recipe.version,
        "ComponentType": recipe.component_type,
        "ComponentDescription": recipe.description,
        "ComponentPublisher": recipe.publisher,
        "ComponentConfiguration": {"DefaultConfiguration": recipe.configuration},
        "ComponentDependencies": {
            name: {"VersionRequirement": dependency.requirement, "DependencyType": dependency.kind}
            for name, dependency in recipe.dependencies.items()
        },
        "Manifests": [_describe_manifest(manifest) for manifest in recipe.manifests],
        "Lifecycle": recipe.lifecycle,
    }
    return {key: value for key, value in described.items() if value != ""}


def _describe_manifest(manifest: Manifest) -> dict[str, Any]:
    described: dict[str, Any] = {
        "Name": manifest.name,
        "Platform": manifest.platform,
        "Lifecycle": manifest.lifecycle,
        "Selections": list(manifest.selections),
        "Artifacts": [_describe_artifact(artifact) for artifact in manifest.artifacts],
    }
    return {key: value for key, value in described.items() if value}


def _describe_artifact(artifact: Artifact) -> dict[str, Any]:
    described: dict[str, Any] = {
        "Uri": artifact.uri,
        "Digest": artifact.digest,
        "Algorithm": artifact.algorithm,
        "Unarchive": artifact.unarchive,
        "Permission": {"Read": artifact.read, "Execute": artifact.execute},
    }
    return {key: value for key, value in described.items() if value}


def read(data: bytes, source: str) -> Recipe:
    """Reads and checks a recipe; `source` says in errors where it came from (a path, "the cloud").

    Raises NucleusError with RECIPE_PARSE_ERROR or the more exact code of what is wrong.
    """
    if len(data) > LIMIT_BYTES:
        detail = f"cannot read recipe ({source}): {len(data)} bytes are more than the limit of {LIMIT_BYTES}"
        raise errors.NucleusError("RECIPE_PARSE_ERROR", detail)
    try:
        value = markup.read(data)
    except markup.Unreadable as error:
        place = f"line {error.line}: " if error.line else ""
        detail = f"cannot read recipe {_whose(data)}({source}): {place}{error.why}"
        raise errors.NucleusError("RECIPE_PARSE_ERROR", detail) from error
    try:
        return _recipe(recipe_fields.Field(value))
    except recipe_fields.Problem as problem:
        raise errors.NucleusError(problem.code, _complaint(data, source, problem)) from problem


def _whose(data: bytes) -> str:
    """Name and version as far as the text shows them, also if it cannot be read; ends in a space unless empty."""
    found = {match[1].lower(): match[2] for match in reversed(list(_SHOWN.finditer(data)))}
    words = [found[key].decode() for key in (b"name", b"version") if b"name" in found and key in found]
    return "".join(f"{word} " for word in words)


def _complaint(data: bytes, source: str, problem: recipe_fields.Problem) -> str:
    at = markup.line(data, problem.path)
    where = [f"key {recipe_fields.show(problem.path)}"] if problem.path else []
    where += [f"line {at}"] if at else []
    place = ", ".join(where) + ": " if where else ""
    return f"cannot read recipe {_whose(data)}({source}): {place}{problem.why}"


def _recipe(top: recipe_fields.Field) -> Recipe:
    if not isinstance(top.value, dict):
        raise recipe_fields.Problem((), f"a recipe must be a mapping, not {recipe_fields.kind(top.value)}")
    given = recipe_fields.member(top, "RecipeFormatVersion")
    if recipe_fields.text(given, None) != FORMAT:
        raise recipe_fields.Problem(given.path, f'must be {FORMAT}, not "{given.value}"')
    configuration = recipe_fields.member(top, "ComponentConfiguration")
    return Recipe(
        name=_name(recipe_fields.member(top, "ComponentName")),
        version=_version(recipe_fields.member(top, "ComponentVersion")),
        description=recipe_fields.text(recipe_fields.member(top, "ComponentDescription")),
        publisher=recipe_fields.text(recipe_fields.member(top, "ComponentPublisher")),
        component_type=recipe_fields.choice(recipe_fields.member(top, "ComponentType"), TYPES, GENERIC),
        configuration=recipe_fields.plain(recipe_fields.member(configuration, "DefaultConfiguration")),
        dependencies=_dependencies(recipe_fields.member(top, "ComponentDependencies")),
        manifests=_manifests(recipe_fields.member(top, "Manifests")),
        lifecycle=recipe_fields.plain(recipe_fields.member(top, "Lifecycle")),
    )


def _name(field: recipe_fields.Field) -> str:
    name = recipe_fields.text(field, None)
    if NAME.fullmatch(name) is None or name in (".", ".."):
        raise recipe_fields.Problem(field.path, f'must be 1 to 128 of a-z A-Z 0-9 - _ ., not "{name[:140]}"')
    return name


def _version(field: recipe_fields.Field) -> str:
    try:
        return str(version.Version.parse(recipe_fields.text(field, None)))
    except errors.NucleusError as error:
        raise recipe_fields.Problem(field.path, error.detail, error.code) from error


def _dependencies(field: recipe_fields.Field) -> dict[str, Dependency]:
    return {name: _dependency(name, each) for name, each in recipe_fields.members(field).items()}


def _dependency(name: str, field: recipe_fields.Field) -> Dependency:
    requirement = recipe_fields.member(field, "VersionRequirement")
    kinds = (component.HARD, component.SOFT)
    if NAME.fullmatch(name) is None:
        raise recipe_fields.Problem(field.path, "is not a component name", "COMPONENT_DEPENDENCY_NOT_VALID")
    try:
        wanted = version.Range.parse(recipe_fields.text(requirement) or "*")
    except errors.NucleusError as error:
        raise recipe_fields.Problem(requirement.path, error.detail, error.code) from error
    kind = recipe_fields.choice(recipe_fields.member(field, "DependencyType"), kinds, component.HARD)
    return Dependency(str(wanted), kind)


def _manifests(field: recipe_fields.Field) -> tuple[Manifest, ...]:
    manifests = tuple(_manifest(each) for each in recipe_fields.entries(field))
    if not manifests:
        why = "must list at least one manifest; `- {}` fits every platform"
        raise recipe_fields.Problem(field.path, why, "RECIPE_MISSING_MANIFEST")
    return manifests


def _manifest(field: recipe_fields.Field) -> Manifest:
    if field.value is None:
        raise recipe_fields.Problem(field.path, "is empty; write `{}` for a manifest that fits every platform")
    selections = recipe_fields.entries(recipe_fields.member(field, "Selections"))
    return Manifest(
        name=recipe_fields.text(recipe_fields.member(field, "Name")),
        platform=_platform(recipe_fields.member(field, "Platform")),
        lifecycle=recipe_fields.plain(recipe_fields.member(field, "Lifecycle")),
        selections=tuple(recipe_fields.text(selection, None) for selection in selections),
        artifacts=_artifacts(recipe_fields.member(field, "Artifacts")),
    )


def _platform(field: recipe_fields.Field) -> dict[str, str | None]:
    claims: dict[str, str | None] = {}
    for key, claim in recipe_fields.members(field).items():
        claims[key] = None if claim.value is None else recipe_fields.text(claim)
        try:
            re.compile(recipe_platform.regex(claims[key] or "") or "")
        except re.error as error:
            raise recipe_fields.Problem(claim.path, f"is not a regular expression: {error}") from error
    return claims


def _artifacts(field: recipe_fields.Field) -> tuple[Artifact, ...]:
    artifacts: list[Artifact] = []
    taken: set[str] = set()
    for each in recipe_fields.entries(field):
        artifact, where = _artifact(each), recipe_fields.member(each, "URI")
        try:
            name = "" if recipe_artifact.scheme(artifact.uri) == "docker" else file_name(artifact)
        except errors.NucleusError as error:
            raise recipe_fields.Problem(where.path, error.detail, error.code) from error
        if name and name in taken:
            raise recipe_fields.Problem(where.path, f'two artifacts of the manifest have the file name "{name}"')
        taken.add(name)
        artifacts.append(artifact)
    return tuple(artifacts)


def _artifact(field: recipe_fields.Field) -> Artifact:
    digest, algorithm = (recipe_fields.member(field, key) for key in ("Digest", "Algorithm"))
    if digest.value and not algorithm.value:
        raise recipe_fields.Problem(
            digest.path, "needs an Algorithm beside it", "RECIPE_MISSING_ARTIFACT_HASH_ALGORITHM"
        )
    permission = recipe_fields.member(field, "Permission")
    who = ("NONE", "OWNER", "ALL")
    return Artifact(
        uri=recipe_fields.text(recipe_fields.member(field, "URI")),
        digest=recipe_fields.text(digest),
        algorithm=recipe_fields.text(algorithm),
        unarchive=recipe_fields.choice(recipe_fields.member(field, "Unarchive"), ("NONE", "ZIP"), "NONE"),
        read=recipe_fields.choice(recipe_fields.member(permission, "Read"), who, "OWNER"),
        execute=recipe_fields.choice(recipe_fields.member(permission, "Execute"), who, "NONE"),
    )
