"""Recipe variables in lifecycles and configuration: `{configuration:/pointer}`, `{artifacts:path}`, cross-component forms.

Rules (spec/nucleus.md 1.8): a placeholder that leads nowhere is left as it is and told; what is put in is not looked at
again; `{component:namespace:key}` works only for the component itself and its direct dependencies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import values

_PLACEHOLDER = re.compile(r"\{([.\w-]+):(?:([.\w-]+):)?([^:}]*)\}", re.ASCII)
_MISSING = object()


class Known(Struct, frozen=True, kw_only=True):
    """What placeholders may say about one component; paths are absolute."""

    version: str
    configuration: dict[str, Any]
    artifacts_path: str
    decompressed_path: str
    work_path: str


class System(Struct, frozen=True):
    """What placeholders may say about the device."""

    root_path: str
    thing_name: str


def lifecycle(
    component: str,
    lifecycle: Mapping[str, Any],
    known: Mapping[str, Known],
    system: System,
    dependencies: Collection[str] = (),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The lifecycle with its placeholders replaced in every text, and those that were left as they were."""
    scope = {name: each for name, each in known.items() if name == component or name in dependencies}
    left: dict[str, None] = {}

    def look_up(name: str, namespace: str, key: str) -> Any:
        return _look_up(scope.get(name), system, namespace, key)

    replaced = _replacer(component, look_up, left)
    return {phase: _filled(step, replaced) for phase, step in lifecycle.items()}, tuple(left)


def configured(
    component: str, value: Any, known: Mapping[str, Known], system: System, dependencies: Collection[str] = ()
) -> Any:
    """One value of the component's configuration with system variables replaced, and only those (spec/nucleus.md 1.8)."""
    scope = {name: each for name, each in known.items() if name == component or name in dependencies}

    def look_up(name: str, namespace: str, key: str) -> Any:
        return _MISSING if namespace == "configuration" else _look_up(scope.get(name), system, namespace, key)

    return _filled(value, _replacer(component, look_up, {}))


def _replacer(
    component: str, look_up: Callable[[str, str, str], Any], left: dict[str, None]
) -> Callable[[re.Match[str]], str]:
    """What stands for one placeholder; those that lead nowhere go into `left`."""

    def replaced(match: re.Match[str]) -> str:
        first, second, key = match.groups()
        name, namespace = (first, second) if second else (component, first)
        found = look_up(name, namespace, key)
        if found is _MISSING:
            left[match[0]] = None
            return match[0]
        return _text(found)

    return replaced


def _filled(value: Any, replaced: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(replaced, value)
    if isinstance(value, Mapping):
        return {key: _filled(child, replaced) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, replaced) for child in value]
    return value


def _look_up(known: Known | None, system: System, namespace: str, key: str) -> Any:
    if known is None:
        return _MISSING
    if namespace == "configuration":
        return _pointed(known.configuration, key)
    found = {
        ("artifacts", "path"): known.artifacts_path,
        ("artifacts", "decompressedPath"): known.decompressed_path,
        ("work", "path"): known.work_path,
        ("kernel", "rootPath"): system.root_path,
        ("iot", "thingName"): system.thing_name,
    }
    return found.get((namespace, key), _MISSING)


def _pointed(value: Any, pointer: str) -> Any:
    """What a JSON pointer leads to, through lists, too; names match whatever their case if not exactly."""
    path = values.pointer(pointer)
    if path is None:
        return _MISSING
    for name in path:
        if isinstance(value, Mapping):
            alike = {key.lower(): child for key, child in value.items()}
            value = value.get(name, alike.get(name.lower(), _MISSING))
        elif isinstance(value, list) and name.isdecimal() and name.isascii() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def _text(value: Any) -> str:
    """A text as it is; everything else as compact JSON with sorted names."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
