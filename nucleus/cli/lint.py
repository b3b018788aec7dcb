"""Finds all mistakes an author can make in a recipe: shape (JSON Schema), values, references, models pinned by path.

The device reads leniently (nucleus.core.recipe); this is the strict side. Source: spec/nucleus.md 1.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
from msgspec import Struct

from nucleus.cli import lint_care, lint_references
from nucleus.core import errors, markup, recipe_artifact, recipe_fields, version

LIMIT_BYTES = 16_000  # what the service takes: the original's limit
MODEL_FILE = "model.json"  # an artifact of this name makes a component a model
SCHEMA = json.loads(Path(__file__).with_name("recipe_schema.json").read_text(encoding="utf-8"))


class Mistake(Struct, frozen=True, rename="camel"):
    """`line` counts from 1, 0 means the whole file; `key` is a dotted path in the author's spelling, or empty."""

    file: str
    line: int
    key: str
    code: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key + ': ' if self.key else ''}{self.message} [{self.code}]"


class Found(Struct, frozen=True):
    """A mistake before its line is known; `path` is in the author's spelling."""

    path: markup.Path
    message: str
    code: str = "RECIPE_NOT_VALID"


def lint(data: bytes, file: str, models: Collection[str] = ()) -> list[Mistake]:
    """All mistakes of one recipe in the order of its lines; `models` are the names known to be models."""
    try:
        value = markup.read(data)
    except markup.Unreadable as error:
        return [Mistake(file, error.line, "", "RECIPE_PARSE_ERROR", error.why)]
    found = list(_found(data, value, models))
    placed = [Mistake(file, markup.line(data, one.path), show(one.path), one.code, one.message) for one in found]
    return sorted(placed, key=lambda one: (one.line, one.key, one.message))


def model_name(data: bytes) -> str:
    """The name of the component if the recipe is a model's, otherwise empty; unreadable recipes are no models."""
    try:
        folded, _ = fold(markup.read(data))
        files = [str(one["URI"]).rpartition("/")[2] for each in folded["Manifests"] for one in each["Artifacts"]]
        return str(folded["ComponentName"]) if MODEL_FILE in files else ""
    except (markup.Unreadable, KeyError, TypeError):
        return ""


def show(path: markup.Path) -> str:
    return recipe_fields.show(path) if path else ""


def fold(value: Any) -> tuple[Any, dict[markup.Path, markup.Path]]:
    """The recipe with its keys in the schema's spelling, and for each path there the author's."""
    paths: dict[markup.Path, markup.Path] = {}
    return _fold(value, SCHEMA, (), (), paths), paths


def _found(data: bytes, value: Any, models: Collection[str]) -> Iterator[Found]:
    if len(data) > LIMIT_BYTES:
        yield Found((), f"a recipe has at most {LIMIT_BYTES} bytes, this one has {len(data)}")
    folded, paths = fold(value)
    for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(folded):
        for path, message in _told(error):
            # Keys the schema does not know are not in `paths`; they keep the author's spelling.
            yield Found(_original(paths, path), message)
    if isinstance(folded, dict):
        for path, message, code in (*_values(folded), *lint_references.find(folded, models), *lint_care.find(folded)):
            yield Found(_original(paths, path), message, code)


def _original(paths: Mapping[markup.Path, markup.Path], path: markup.Path) -> markup.Path:
    return paths.get(path, path)


def _fold(
    value: Any,
    schema: Mapping[str, Any],
    at: markup.Path,
    original: markup.Path,
    paths: dict[markup.Path, markup.Path],
) -> Any:
    paths[at] = original
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        inner = schema.get("items", {})
        return [_fold(one, inner, (*at, i), (*original, i), paths) for i, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    mapping: dict[str, Any] = value
    spelling = {name.lower(): name for name in schema.get("properties", {})}
    further = schema.get("additionalProperties")
    folded: dict[str, Any] = {}
    for key, one in mapping.items():
        name = spelling.get(key.lower(), key)
        below = schema.get("properties", {}).get(name) or (further if isinstance(further, dict) else {})
        folded[name] = _fold(one, below, (*at, name), (*original, key), paths)
    return folded


def _told(error: jsonschema.ValidationError) -> Iterator[tuple[markup.Path, str]]:
    """The schema's complaint in our words, at the key it is about."""
    told: Any = error  # its attributes may be unset, of other errors than a validator's
    path: markup.Path = tuple(told.absolute_path)
    schema: dict[str, Any] = told.schema
    if error.validator == "additionalProperties":
        known = list(schema["properties"])
        for key in sorted(set(told.instance) - set(known)):
            near = difflib.get_close_matches(key.lower(), [name.lower() for name in known], 1)
            hint = next((name for name in known if near and name.lower() == near[0]), "")
            yield (*path, key), "unknown key" + (f"; did you mean {hint}?" if hint else f"; known: {', '.join(known)}")
    elif error.validator == "required":
        missing = error.message.split("'")[1]
        yield path, f"the key {missing} is missing"
    else:
        yield path, str(schema.get("description", error.message))


def _values(folded: Mapping[str, Any]) -> Iterator[tuple[markup.Path, str, str]]:
    """What a schema cannot say: versions, ranges, artifact URIs."""
    if isinstance(text := folded.get("ComponentVersion"), str):
        yield from _refused(("ComponentVersion",), version.Version.parse, text)
    for name, one in _mapping(folded.get("ComponentDependencies")).items():
        if isinstance(text := _mapping(one).get("VersionRequirement"), str):
            yield from _refused(("ComponentDependencies", name, "VersionRequirement"), version.Range.parse, text)
    for index, manifest in enumerate(_list(folded.get("Manifests"))):
        path = ("Manifests", index)
        phases = _mapping(_mapping(manifest).get("Lifecycle"))
        if "Run" in phases and "Startup" in phases:
            where = (*path, "Lifecycle", "Run")
            yield where, "a component has Startup or Run, not both: Run will never be started", "RECIPE_NOT_VALID"
        yield from _artifacts((*path, "Artifacts"), _list(_mapping(manifest).get("Artifacts")))


def _artifacts(path: markup.Path, artifacts: list[Any]) -> Iterator[tuple[markup.Path, str, str]]:
    taken = set()
    for index, artifact in enumerate(artifacts):
        uri, where = _mapping(artifact).get("URI"), (*path, index, "URI")
        if not isinstance(uri, str):
            continue
        complaints = list(_refused(where, recipe_artifact.scheme, uri))
        if not complaints and recipe_artifact.scheme(uri) == "docker":
            yield where, "docker: artifacts cannot be run yet; ship files instead", "DOCKER_ERROR"
            continue
        complaints = complaints or list(_refused(where, recipe_artifact.file_name, uri))
        yield from complaints
        if not complaints and (name := recipe_artifact.file_name(uri)) in taken:
            yield where, f"two artifacts of the manifest have the file name {name}", "RECIPE_NOT_VALID"
        elif not complaints:
            taken.add(name)


def _refused(path: markup.Path, check: Any, text: str) -> Iterator[tuple[markup.Path, str, str]]:
    try:
        check(text)
    except errors.NucleusError as error:
        yield path, error.detail, error.code


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
