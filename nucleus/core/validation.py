"""May this configuration be given to those components? What is asked, and what their answers mean (spec/nucleus.md 5.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import configuration, desired


class Answer(Struct, frozen=True):
    accepted: bool
    message: str = ""


def proposals(
    before: configuration.Tree, after: configuration.Tree, listening: frozenset[str]
) -> dict[str, dict[str, Any]]:
    """The new configuration of every listening component whose version stays and whose configuration changes."""
    old, new = desired.installed(before), desired.installed(after)
    found = {}
    for name in sorted(listening & old.keys() & new.keys()):
        path = (desired.SERVICES, name, "configuration")
        was, becomes = _plain(before, path), _plain(after, path)
        if old[name].version == new[name].version and was != becomes:
            found[name] = becomes
    return found


def objection(asked: frozenset[str], answers: Mapping[str, Answer], *, silence_fails: bool, timeout_s: float) -> str:
    """Why the configuration must not be given, "" if it may.

    THE place of AWS's quirk (design.md decision 16): the original fails a deployment when a component does not answer in
    time, while its documentation says that the deployment goes on. Ours goes on, unless `silence_fails`.
    """
    refused = [
        f"{name}: {one.message or 'no reason given'}" for name, one in sorted(answers.items()) if not one.accepted
    ]
    if refused:
        return f"refused by {'; '.join(refused)}"
    silent = sorted(asked - answers.keys())
    if silent and silence_fails:
        return f"not answered within {timeout_s:g} s by {', '.join(silent)}"
    return ""


def _plain(tree: configuration.Tree, path: configuration.Path) -> dict[str, Any]:
    found = configuration.plain(configuration.subtree(tree, path))
    return found if isinstance(found, dict) else {}
