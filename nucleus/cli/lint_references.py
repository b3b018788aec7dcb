"""Checks the recipe variables of a recipe: who may be named, and that no application is pinned to a model's files.

MODEL_PATH_PINNED: an application that names a model's artifact path or exact version is restarted by every new model.
It should ask the model agent instead (design.md 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nucleus.core import errors, markup, version

Finding = tuple[markup.Path, str, str]

PINNED = "MODEL_PATH_PINNED"
_CROSS = re.compile(r"\{([.\w-]+):([.\w-]+):([^:}]*)}")  # spec/nucleus.md 1.8
_OWN = re.compile(r"\{([.\w-]+):([^:}]*)}")
_NAMESPACES = {"configuration": None, "artifacts": {"path", "decompressedPath"}, "work": {"path"}}
_SYSTEM = {"kernel": {"rootPath"}, "iot": {"thingName"}}


def find(folded: Mapping[str, Any], models: Collection[str]) -> Iterator[Finding]:
    """All findings of a recipe in the schema's spelling; `models` are known by their recipes, others by their names."""
    dependencies = folded.get("ComponentDependencies")
    names = dependencies if isinstance(dependencies, dict) else {}
    pinning = {name for name in names if name in models or _sounds_like_a_model(name)}
    if folded.get("ComponentName") in models:
        pinning = set()
    for path, text in _texts(folded, ()):
        yield from _variables(path, text, set(names), pinning)
    for name in sorted(pinning):
        requirement = names[name].get("VersionRequirement") if isinstance(names[name], dict) else None
        if isinstance(requirement, str) and _is_exact(requirement):
            where = ("ComponentDependencies", name, "VersionRequirement")
            yield where, f"pins the model {name} to one version: {_cure(name)}", PINNED


def _variables(path: markup.Path, text: str, names: set[str], pinning: set[str]) -> Iterator[Finding]:
    lifecycle = "Lifecycle" in path
    for component, namespace, key in _CROSS.findall(text):
        if component in pinning and namespace == "artifacts":
            yield path, f"names the artifacts of the model {component}: {_cure(component)}", PINNED
        elif lifecycle and component not in names:
            what = f"{{{component}:{namespace}:{key}}} names a component that is no dependency"
            yield path, f"{what}; it will stay as it is", "CONFIG_INTERPOLATE_ERROR"
        elif lifecycle and not _known(namespace, key, _NAMESPACES):
            yield path, f"{{{component}:{namespace}:{key}}} is no recipe variable", "CONFIG_INTERPOLATE_ERROR"
    for namespace, key in _OWN.findall(text) if lifecycle else ():
        if namespace in (*_NAMESPACES, *_SYSTEM) and not _known(namespace, key, _NAMESPACES | _SYSTEM):
            yield path, f"{{{namespace}:{key}}} is no recipe variable", "CONFIG_INTERPOLATE_ERROR"
    for name in sorted(pinning):
        if re.search(rf"artifacts(-unarchived)?/{re.escape(name)}/", text):
            yield path, f"names a folder of the model {name}: {_cure(name)}", PINNED


def _known(namespace: str, key: str, known: Mapping[str, set[str] | None]) -> bool:
    if namespace not in known:
        return False
    keys = known[namespace]
    return key == "" or key.startswith("/") if keys is None else key in keys


def _cure(name: str) -> str:
    return f"every new {name} would restart this component; ask the model agent for predictions instead"


def _sounds_like_a_model(name: str) -> bool:
    return name.rpartition(".")[2].lower().endswith("model")


def _is_exact(requirement: str) -> bool:
    try:
        return version.Range.parse(requirement).exact() is not None
    except errors.NucleusError:
        return False  # told by lint itself


def _texts(value: Any, path: markup.Path) -> Iterator[tuple[markup.Path, str]]:
    """Every text with its path; the depth is bounded by markup."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _texts(one, (*path, index))
