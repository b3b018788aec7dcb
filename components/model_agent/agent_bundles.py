"""Models that came in a bundle: operations of the native door for the local user (`marram bundle`).

    {"op": "apply_bundle", "component", "version", "artifacts": folder, "settings": {}}      -> message
    {"op": "release_bundle", "component"}                                                    -> message

A bundle's alias belongs to bundles: a newer one of the same component takes its place, a deployment does not until it is
released. The folder holds what was in the bundle; whether it is signed is judged here again, on the very bytes that are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_entry
import agent_predictions


class Bundles:
    """The two operations."""

    def __init__(self, aliases: agent_aliases.Aliases) -> None:
        self._aliases = aliases

    def apply(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """Serves the model; raises RefusedError, RequestError."""
        component, version, folder = (
            agent_predictions.text(header, key) for key in ("component", "version", "artifacts")
        )
        settings = header.get("settings", {})
        return _told(self._aliases.offer(component, version, Path(folder), settings, owner=agent_entry.BUNDLE))

    def release(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """Lets deployments take the aliases, which answer until then; raises RefusedError when no bundle serves them."""
        component = agent_predictions.text(header, "component")
        wanted = (component, agent_entry.BUNDLE)
        versions = {row["offered"] for row in self._aliases.listed() if (row["component"], row["owner"]) == wanted}
        if not versions:
            raise agent_check.RefusedError(f"no bundle of {component} serves anything here", "NOT_FOUND")
        return _told(
            "; ".join(self._aliases.release(component, each, owner=agent_entry.BUNDLE) for each in sorted(versions))
        )


def _told(message: str) -> dict[str, Any]:
    print(f"bundle: {message}", flush=True)
    return {"ok": True, "message": message}
