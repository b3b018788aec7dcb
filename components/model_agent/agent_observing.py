"""What looks at models and their answers: status, metrics, sampled captures and their upload, drift; starts them all.

Three sections of the agent's configuration come as JSON, each in a variable that the recipe sets: `metrics` in
MARRAM_METRICS (agent_metrics.py), `captures` in MARRAM_CAPTURES (agent_capture_store.py) and `captureUpload` in
MARRAM_CAPTURE_UPLOAD (agent_upload.py). What a model wants of it stands in its own settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import agent_aliases
import agent_capture_store
import agent_captures
import agent_drift_watch
import agent_engine
import agent_metrics
import agent_predictions
import agent_report
import agent_settings
import agent_status
import agent_upload
import agent_upload_state

VARIABLES = {"metrics": "MARRAM_METRICS", "captures": "MARRAM_CAPTURES", "captureUpload": "MARRAM_CAPTURE_UPLOAD"}


class ConfigurationError(OSError):
    """A section of the agent's configuration cannot be used; the message names the key."""


class Observing:
    """All of it, started. `services` get their turns (agent_services.py); a trial tells `captures` of disagreements.

    `edge` is the agent_edge_captures.Captures of Edge Manager's door, None without that door.
    """

    def __init__(
        self,
        aliases: agent_aliases.Aliases,
        engine: agent_engine.Engine,
        reporter: agent_report.Publisher,
        edge: Any,
    ) -> None:
        try:
            every = agent_metrics.read(section("metrics"))
            where = agent_capture_store.read(section("captures"))
            destination, bytes_per_day = agent_upload.read(section("captureUpload"))
        except agent_settings.SettingsError as error:
            raise ConfigurationError(str(error)) from error
        self.capture_root = where.root
        self.captures = agent_captures.Captures(where, aliases.serving)
        drift = agent_drift_watch.Drift(aliases, reporter)
        sources: dict[str, agent_metrics.Source] = {"captures": self.captures, "drift": drift}
        uploads: tuple[agent_upload.Uploads, ...] = ()
        budget = agent_upload_state.Budget(bytes_per_day)
        if destination is not None:
            source = agent_upload.Source(destination, where.folder, where.device, lambda: self.captures.store)
            sources["uploads"] = sent = agent_upload.Uploads(source, budget)
            uploads = (sent,)
        if edge is not None and (sent := edge.start_uploads(budget)) is not None:
            sources["edgeUploads"], uploads = sent, (*uploads, sent)
        self._sources = sources
        metrics = agent_metrics.Metrics(aliases, engine, reporter, sources, every)
        # Ended from the last to the first: figures first, then the upload, then the store.
        self.services: tuple[Any, ...] = (
            self.captures,
            *uploads,
            drift,
            metrics,
            agent_status.Status(aliases.listed, reporter),
        )
        engine.observers += [self.captures.observe, drift.observe]

    def observed(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """The operation `observed`: an alias's figures of captures, uploads and drift, where its settings ask for them."""
        alias = agent_predictions.text(header, "alias")
        figures = {key: found for key, source in self._sources.items() if (found := source.figures(alias))}
        return {"ok": True, "observed": figures}

    def capture(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """The operation `capture`: keeps the alias's last answered request, safe on disk when it is answered."""
        alias, identity = agent_predictions.text(header, "alias"), header.get("id", "")
        if not isinstance(identity, str):
            raise agent_predictions.RequestError("INVALID_ARGUMENT", "capture needs id, a UUID as text, or none")
        try:
            return {"ok": True, "id": self.captures.request(alias, identity)}
        except agent_captures.RequestError as error:
            raise agent_predictions.RequestError(error.code, str(error)) from error


def section(name: str) -> Mapping[str, Any]:
    """The section of the agent's configuration, empty if there is none. Raises ConfigurationError."""
    given = os.environ.get(VARIABLES[name], "")
    if not given or given.startswith("{configuration:"):
        return {}  # the nucleus left the placeholder: a configuration from before there was this section
    try:
        found = json.loads(given)
    except ValueError as error:
        raise ConfigurationError(f"{name} in the configuration is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{name} in the configuration is no object")
    return found
