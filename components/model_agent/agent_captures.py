"""Captures what agent_sampling.py chooses into the crash-safe store of agent_capture.py, beside the serving threads.

A request costs its thread a look at the rules and at most a place in a bounded queue. One thread decides the rest and
writes; it opens the store when no other agent has it (during an agent's update two of them run for a moment). A record that
somebody asked for (`request`) is safe on disk when the call returns. Counts are kept for each alias:

    kept          records on disk            dropped    no room in the queue, or the store refused
    overMinute    above perMinute            reasons    kept records by reason
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import agent_capture
import agent_capture_files
import agent_capture_store
import agent_engine
import agent_intake
import agent_sampling
import agent_settings

_LOOK_AGAIN_S = 0.5
_LAST_S = 5.0
_RULES_KEPT = 64
_LINES_LIMIT = 10
REQUEST_S = 20.0  # a request waits for the store


class RequestError(Exception):
    """Nothing was captured; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Counts:
    """Of one alias, since the agent started."""

    seen: int = 0
    kept: int = 0
    dropped: int = 0
    over_minute: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Chosen:
    """Of one answered request what its record needs; never its Serving, which would keep an old model in memory."""

    alias: str
    inputs: Mapping[str, agent_sampling.Array]
    outputs: Mapping[str, agent_sampling.Array]
    component: str
    version: str
    digest: str
    rules: agent_sampling.Rules
    at: float
    reason: str  # "" for one whose confidence is still to be looked at


@dataclass
class _Watched:
    """What is known of one alias; `rules` are those of its last answer."""

    rules: agent_sampling.Rules
    minute: agent_sampling.PerMinute = field(default_factory=agent_sampling.PerMinute)
    counts: Counts = field(default_factory=Counts)
    last: _Chosen | None = None


class Captures:
    """A service and an observer of the engine; `serving` is agent_aliases.Aliases.serving."""

    def __init__(self, where: agent_capture_store.Where, serving: Callable[[str], Any]) -> None:
        self._where = where
        self._serving = serving
        self._lock = threading.Lock()  # of the table and of counts
        self._watched: dict[str, _Watched] = {}
        self._rules: dict[int, tuple[Any, agent_sampling.Rules]] = {}  # by the id of a Settings, which is kept
        self._intake: agent_intake.Intake[_Chosen] = agent_intake.Intake()
        self._lines: list[str] = []
        self._opened = threading.Event()
        self.store: agent_capture.Capture | None = None  # None while another agent has it
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
        self._thread.start()

    def observe(self, observation: agent_engine.Observation) -> None:
        """Called by the engine after each answer."""
        rules = self._rules_of(observation.serving.settings)
        watched = self._watched.get(observation.alias) or self._watch(observation.alias, rules)
        watched.rules = rules
        if rules.nothing:
            return
        with self._lock:
            number = watched.counts.seen
            watched.counts.seen = number + 1
        by_rate = agent_sampling.chosen(observation.alias, number, rules.rate)
        if not (by_rate or rules.low_output or rules.on_request):
            return
        chosen = _chosen(observation, rules, agent_sampling.RATE if by_rate else "")
        if rules.on_request:
            watched.last = chosen
        if by_rate or rules.low_output:
            self._put(watched, chosen)

    def disagreed(self, observation: agent_engine.Observation) -> None:
        """Tells that a trial's version answers this request differently; returns at once."""
        rules = self._rules_of(observation.serving.settings)
        if rules.disagreement:
            watched = self._watched.get(observation.alias) or self._watch(observation.alias, rules)
            self._put(watched, _chosen(observation, rules, agent_sampling.DISAGREEMENT))

    def request(self, alias: str, identity: str = "") -> str:
        """Captures the last request that the alias answered; returns its id when it is safe. Raises RequestError.

        `identity` is a UUID, a new one if it is empty.
        """
        watched = self._watched.get(alias)
        if watched is not None and not watched.rules.on_request:
            raise RequestError("FAILED_PRECONDITION", f"cannot capture {alias}: set capture.onRequest in its settings")
        if watched is None or watched.last is None or self._serving(alias) is None:
            raise RequestError("NOT_READY", f"cannot capture {alias}: it has answered nothing yet")
        try:
            identity = str(uuid.UUID(identity)) if identity else str(uuid.uuid4())
        except ValueError:
            raise RequestError("INVALID_ARGUMENT", f"cannot capture {alias}: the id must be a UUID") from None
        if not self._opened.wait(REQUEST_S) or self.store is None:
            raise RequestError("BUSY", f"cannot capture {alias}: another agent still has the store; try again")
        chosen = dataclasses.replace(watched.last, reason=agent_sampling.ON_REQUEST)
        try:
            self.store.submit(_record(chosen, identity))
        except agent_capture.CaptureError as error:
            raise RequestError(error.code, f"cannot capture {alias}: {error}") from error
        self._count(watched, agent_sampling.ON_REQUEST)
        return identity

    def figures(self, alias: str) -> dict[str, Any]:
        """The counts above; empty for an alias whose model asks for no captures."""
        with self._lock:
            watched = self._watched.get(alias)
            if watched is None or watched.rules.nothing:
                return {}
            counts = watched.counts
            return {
                "kept": counts.kept,
                "dropped": counts.dropped,
                "overMinute": counts.over_minute,
                "reasons": dict(counts.reasons),
            }

    def tick(self) -> list[str]:
        """Forgets aliases that are gone, with the arrays kept of them."""
        with self._lock:
            for alias in [alias for alias in self._watched if self._serving(alias) is None]:
                del self._watched[alias]
            lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        """Writes what was chosen and gives the store away."""
        self._intake.close()
        self._thread.join(_LAST_S)

    # ---- the serving threads' part -----------------------------------------------------------------------------------

    def _rules_of(self, settings: Any) -> agent_sampling.Rules:
        known = self._rules.get(id(settings))
        if known is not None:
            return known[1]
        try:
            rules = agent_sampling.read(settings.capture)
        except agent_settings.SettingsError:  # it was refused at the offer; a store written by an older agent
            rules = agent_sampling.Rules()
        with self._lock:
            if len(self._rules) >= _RULES_KEPT:
                self._rules.clear()
            self._rules[id(settings)] = (settings, rules)
        return rules

    def _watch(self, alias: str, rules: agent_sampling.Rules) -> _Watched:
        with self._lock:
            return self._watched.setdefault(alias, _Watched(rules))

    def _put(self, watched: _Watched, chosen: _Chosen) -> None:
        if not self._intake.put(chosen, agent_intake.size_of(chosen.inputs, chosen.outputs)):
            self._count(watched, "")

    def _count(self, watched: _Watched, reason: str) -> None:
        with self._lock:
            if not reason:
                watched.counts.dropped += 1
                return
            watched.counts.kept += 1
            watched.counts.reasons[reason] = watched.counts.reasons.get(reason, 0) + 1

    # ---- the writing thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            while not self._intake.closed and not self._opens(stack):
                self._intake.closes_within(_LOOK_AGAIN_S)
            while not self._intake.closed or self._intake.waiting:
                chosen = self._intake.take(_LOOK_AGAIN_S)
                if chosen is not None and self.store is not None:
                    self._kept(chosen, self.store)

    def _opens(self, stack: contextlib.ExitStack) -> bool:
        try:
            self.store = agent_capture_store.open_store(self._where, stack)
        except OSError as error:
            self._say(f"captures: the store {self._where.root} cannot be used for now: {error}")
        if self.store is None:
            return False
        if self.store.repaired:
            self._say(f"captures: {self.store.repaired}")
        self._opened.set()
        return True

    def _kept(self, chosen: _Chosen, store: agent_capture.Capture) -> None:
        try:
            self._keep(chosen, store)
        except Exception as error:  # strange tensors of one request must not end the captures of all others
            self._say(f"captures: a request of {chosen.alias} was not kept: {error!r}")

    def _keep(self, chosen: _Chosen, store: agent_capture.Capture) -> None:
        watched = self._watched.get(chosen.alias)
        if watched is None:
            return  # the alias is gone
        reason = chosen.reason
        if not reason:
            if not agent_sampling.is_low(chosen.rules, chosen.outputs):
                return
            reason = agent_sampling.LOW_CONFIDENCE
        if not watched.minute.take(chosen.rules.per_minute, chosen.at):
            with self._lock:
                watched.counts.over_minute += 1
            return
        try:
            store.submit(_record(dataclasses.replace(chosen, reason=reason), str(uuid.uuid4())))
        except agent_capture.CaptureError as error:
            self._count(watched, "")
            self._say(f"captures: a request of {chosen.alias} was not kept: {error}")
            return
        self._count(watched, reason)

    def _say(self, line: str) -> None:
        with self._lock:
            if line not in self._lines and len(self._lines) < _LINES_LIMIT:
                self._lines.append(line)


def _chosen(observation: agent_engine.Observation, rules: agent_sampling.Rules, reason: str) -> _Chosen:
    inputs = {name: agent_intake.kept(array) for name, array in observation.inputs.items()}
    answer = observation.answer
    outputs = {name: agent_intake.kept(array) for name, array in answer.outputs.items()}
    digest = observation.serving.digest
    return _Chosen(
        observation.alias, inputs, outputs, answer.component, answer.version, digest, rules, time.time(), reason
    )


def _record(chosen: _Chosen, identity: str) -> agent_capture_files.Record:
    more = {
        "component": chosen.component,
        "modelVersion": chosen.version,
        "modelDigest": chosen.digest,
        "reason": chosen.reason,
    }
    return agent_capture_files.Record(
        chosen.alias,
        identity,
        chosen.at,
        agent_sampling.items(chosen.inputs) if chosen.rules.inputs else (),
        agent_sampling.items(chosen.outputs) if chosen.rules.outputs else (),
        tuple(more.items()),
    )
