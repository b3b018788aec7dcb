"""Loads an accepted model in the way its settings ask for; what it returns has `manifest` and `predict(inputs)`."""

from __future__ import annotations

import agent_check
import agent_isolated
import agent_runs
import agent_settings


def load(
    manifest: agent_check.Manifest, model: bytes, settings: agent_settings.Settings
) -> agent_check.Model | agent_isolated.IsolatedModel:
    """Runs every check and returns the model, warm. Raises agent_check.RefusedError."""
    if settings.isolated:
        return agent_isolated.load(manifest, model, settings.worker_memory_bytes, settings.hang_s)
    agent_runs.watch()
    return agent_check.load(manifest, model, agent_runs.patience_s(settings.hang_s, 0.0))
