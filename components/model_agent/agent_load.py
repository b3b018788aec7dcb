"""Loads an accepted model in the way its settings ask for; what it returns has `manifest` and `predict(inputs)`."""

from __future__ import annotations

import agent_check
import agent_settings


def load(manifest: agent_check.Manifest, model: bytes, settings: agent_settings.Settings) -> agent_check.Model:
    """Runs every check and returns the model, warm. Raises agent_check.RefusedError."""
    if settings.isolated:
        raise agent_check.RefusedError("this agent cannot run a model in a process of its own yet")
    return agent_check.load(manifest, model)
