"""Checks what a recipe's default configuration asks for under `marram` (core/care.py), and that it can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nucleus.core import care, markup

CODE = "COMPONENT_CONFIGURATION_NOT_VALID"
_UPDATE = ("overlap",)


def find(folded: Mapping[str, Any]) -> Iterator[tuple[markup.Path, str, str]]:
    """All findings of a recipe in the schema's spelling."""
    settings = _mapping(_mapping(folded.get("ComponentConfiguration")).get("DefaultConfiguration"))
    where = ("ComponentConfiguration", "DefaultConfiguration", care.KEY)
    if care.KEY not in settings:
        return
    try:
        wish = care.read(settings[care.KEY])
    except care.NotValid as error:
        yield where, str(error), CODE
        return
    for key in sorted(set(_mapping(_mapping(settings[care.KEY]).get("update"))) - set(_UPDATE)):
        yield (*where, "update", key), f"unknown key; known: {', '.join(_UPDATE)}", CODE
    if not wish.overlap:
        return
    needs = [
        *(["Startup instead of Run (only it can say when it is RUNNING)"] if _has_run(folded) else []),
        *(["no heartbeat"] if wish.health_check is not None and wish.health_check.kind == care.HEARTBEAT else []),
        *(["no rollbackState"] if wish.rollback_state is not None else []),
    ]
    for need in needs:
        yield (
            (*where, "update", "overlap"),
            f"an update beside the old version needs {need}; it will stop it first",
            CODE,
        )


def _has_run(folded: Mapping[str, Any]) -> bool:
    manifests = folded.get("Manifests")
    lifecycles = [
        _mapping(_mapping(one).get("Lifecycle")) for one in (manifests if isinstance(manifests, list) else [])
    ]
    return any("Run" in each for each in (*lifecycles, _mapping(folded.get("Lifecycle"))))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
