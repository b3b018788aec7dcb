"""Watches served models for drift, beside the serving threads; reports it and, if the model's settings say so, goes back.

Only answers of what serves are counted, none of a trial's version. A request costs its thread a look at the settings and a
place in a bounded queue; what finds no room is not counted. Windows are in memory: an agent that starts begins a new one.
Each row of drifted windows is one event of kind `drift` (agent_report.py):

    {"component", "version", "digest", "windows", "windowSamples", "psi", "psiOf", "psiLimit", "outputP", "outputPOf",
     "outputPBelow", "action": "report" | "rollback", "outcome": "reported" | "held" | "refused", "message"}
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import agent_check
import agent_drift
import agent_engine
import agent_intake
import agent_report
import agent_settings

_LOOK_AGAIN_S = 0.5
_LAST_S = 2.0
_LINES_LIMIT = 100


class Aliases(Protocol):
    """Of agent_aliases.Aliases what is needed here."""

    def serving(self, alias: str) -> Any:
        """What answers."""

    def hold(self, alias: str, by: str, reason: str) -> str:
        """Goes back to the version before, durably."""


@dataclass(frozen=True)
class _Seen:
    alias: str
    digest: str
    inputs: Mapping[str, agent_drift.Array]
    outputs: Mapping[str, agent_drift.Array]


@dataclass
class _Watched:
    """One serving version; without features or rules there is nothing to watch."""

    settings: Any  # kept, so that its identity stays its own
    digest: str
    component: str
    version: str
    rules: agent_drift.Rules | None
    features: tuple[agent_drift.Feature, ...]
    window: agent_drift.Window
    row: agent_drift.Row = field(default_factory=agent_drift.Row)
    windows: int = 0
    drifted: int = 0
    events: int = 0
    refused: bool = False  # the hold: a trial is running, or there is no version before
    last: agent_drift.Finding | None = None
    dropped: int = 0


class Drift:
    """A service and an observer of the engine."""

    def __init__(self, aliases: Aliases, reporter: agent_report.Publisher) -> None:
        self._aliases = aliases
        self._reporter = reporter
        self._watched: dict[str, _Watched] = {}
        self._intake: agent_intake.Intake[_Seen] = agent_intake.Intake()
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        self._thread.start()

    def observe(self, observation: agent_engine.Observation) -> None:
        """Called by the engine after each answer."""
        serving = observation.serving
        watched = self._watched.get(observation.alias)
        if watched is None or watched.settings is not serving.settings or watched.digest != serving.digest:
            if self._aliases.serving(observation.alias) is not serving:
                return  # a trial's version, or one that was exchanged in this moment
            if watched is not None and (watched.settings, watched.digest) == (serving.settings, serving.digest):
                watched.settings = serving.settings  # the same model, back in memory
            else:
                watched = self._watched[observation.alias] = _watch(serving)
        if watched.rules is None or not watched.features:
            return
        kept = [
            {name: agent_intake.kept(array) for name, array in tensors.items()}
            for tensors in (observation.inputs, observation.answer.outputs)
        ]
        if not self._intake.put(_Seen(observation.alias, watched.digest, *kept), agent_intake.size_of(*kept)):
            watched.dropped += 1

    def figures(self, alias: str) -> dict[str, Any]:
        """Windows and the last one's statistics; empty for a model whose settings ask for nothing."""
        watched = self._watched.get(alias)
        if watched is None or watched.rules is None:
            return {}
        found: dict[str, Any] = {
            "windows": watched.windows,
            "drifted": watched.drifted,
            "events": watched.events,
            "items": watched.window.items,
            "dropped": watched.dropped,
        }
        if not watched.features:
            return {**found, "lacks": "reference in model.json"}
        return {**found, **_statistics(watched.last)} if watched.last else found

    def tick(self) -> list[str]:
        """Forgets aliases that are gone."""
        for alias in [alias for alias in list(self._watched) if self._aliases.serving(alias) is None]:
            self._watched.pop(alias, None)
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        """Ends; the window begun is forgotten."""
        self._intake.close()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        while not self._intake.closed:
            seen = self._intake.take(_LOOK_AGAIN_S)
            watched = self._watched.get(seen.alias) if seen else None
            if seen is None or watched is None or watched.digest != seen.digest or watched.rules is None:
                continue
            try:
                self._count(seen, watched, watched.rules)
            except Exception as error:  # strange numbers of one request must not end the watch over all others
                self._say(f"drift: a request of {seen.alias} was not counted: {error!r}")

    def _count(self, seen: _Seen, watched: _Watched, rules: agent_drift.Rules) -> None:
        watched.window.add(seen.inputs, seen.outputs)
        if watched.window.items < rules.window:
            return
        finding = watched.last = watched.window.judge(rules)
        watched.window = agent_drift.Window(watched.features)
        watched.windows += 1
        watched.drifted += finding.drifted
        if watched.row.add(finding, rules):
            watched.events += 1
            self._act(seen.alias, watched, rules, finding)
        elif finding.drifted and watched.refused:
            self._act(seen.alias, watched, rules, finding, again=True)

    def _act(
        self,
        alias: str,
        watched: _Watched,
        rules: agent_drift.Rules,
        finding: agent_drift.Finding,
        *,
        again: bool = False,
    ) -> None:
        """Reports, and holds if so told; `again` is one more try of a hold that was refused, told if it succeeds."""
        reason = _reason(finding, rules)
        outcome, message = "reported", reason
        if rules.action == "rollback":
            try:
                outcome, message = "held", self._aliases.hold(alias, "drift", reason)
            except agent_check.RefusedError as error:
                outcome, message = "refused", f"{reason}; cannot go back: {error}"
        watched.refused = outcome == "refused"
        if again and watched.refused:
            return
        self._say(f"drift: {alias} {watched.version}: {message}")
        fields = {
            "component": watched.component,
            "version": watched.version,
            "digest": watched.digest,
            "windows": rules.consecutive,
            "windowSamples": rules.window,
            **_statistics(finding),
            "outputPBelow": rules.p_below,
            "action": rules.action,
            "outcome": outcome,
            "message": message,
        }
        self._reporter.publish(alias, "drift", fields)

    def _say(self, line: str) -> None:
        with self._lock:
            if len(self._lines) < _LINES_LIMIT:
                self._lines.append(line)


def _watch(serving: Any) -> _Watched:
    try:
        rules = agent_drift.read(serving.settings.drift)
    except agent_settings.SettingsError:  # it was refused at the offer; a store written by an older agent
        rules = None
    features = serving.model.manifest.reference
    window = agent_drift.Window(features)
    return _Watched(serving.settings, serving.digest, serving.component, serving.version, rules, features, window)


def _statistics(finding: agent_drift.Finding) -> dict[str, Any]:
    return {
        "psi": round(finding.psi, 6),
        "psiOf": finding.psi_of,
        "psiLimit": round(finding.psi_limit, 6),
        "outputP": float(f"{finding.p:.6g}"),
        "outputPOf": finding.p_of,
    }


def _reason(finding: agent_drift.Finding, rules: agent_drift.Rules) -> str:
    parts = []
    if finding.psi > finding.psi_limit:
        index = f"a population stability index of {finding.psi:.3g} (above {finding.psi_limit:.3g})"
        parts.append(f"{finding.psi_of} has {index}")
    if not parts or finding.p < rules.p_below:
        parts.append(f"{finding.p_of} differs from the reference with p {finding.p:.3g} (below {rules.p_below:g})")
    return f"{' and '.join(parts)} in {rules.consecutive} windows of {rules.window} in a row"
