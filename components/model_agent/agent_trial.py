"""One trial while it runs: samples from the serving threads, one low-priority thread that compares, counts, looks.

A sample costs its serving thread a place in a bounded queue, never a wait. The thread computes with the other model (shadow: the
candidate, canary: the serving one), at the lowest priority and within `cpu_share`: after t seconds of computing it rests for
t * (1 - share) / share (a model with more threads counts as all of them). What finds no place meanwhile is dropped and
counted; it says nothing about the candidate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import agent_agreement
import agent_check
import agent_engine
import agent_guard
import agent_intake
import agent_sampling
import agent_trial_rules
import numpy as np

Array = np.ndarray[Any, Any]
SAMPLES_WAITING = 32
BYTES_WAITING = 16 * 1024 * 1024
SAVE_S = 2.0  # a crash loses the samples of this long at most
_LOWEST_PRIORITY = 19
_TURN_S = 0.2
_LAST_S = 5.0


@dataclass(frozen=True)
class Sample:
    """An answered request; `failed` is why the candidate could not answer it, where it should have (canary)."""

    observation: agent_engine.Observation
    failed: str = ""


class Trial:
    """`serving` names what answers for an alias; `save` and `ended` are called on the trial's thread.

    `save(trial)` makes the counts durable, `ended(trial, end)` acts on the end; `disagreed` gets every observation that
    counts against the candidate.
    """

    def __init__(
        self,
        alias: str,
        candidate: Any,
        terms: agent_trial_rules.Terms,
        counts: agent_trial_rules.Counts,
        serving: Callable[[str], Any],
    ) -> None:
        self.alias = alias
        self.candidate = candidate
        self.terms = terms
        self.ending = False  # decided, and being acted on
        self.save: Callable[[Trial], None] = lambda trial: None
        self.ended: Callable[[Trial, agent_trial_rules.End], None] = lambda trial, end: None
        self.disagreed: Callable[[agent_engine.Observation], None] = lambda observation: None
        # For a canary it is the serving model that computes here, and that may be another one by then: time that passes is safe.
        threads = candidate.model.manifest.session.threads
        self._elsewhere = terms.mode == agent_trial_rules.CANARY or candidate.settings.isolated or threads > 1
        self._threads = threads
        self._serving = serving
        self._counts = counts
        self._since = time.monotonic()
        self._elapsed_before_s = counts.elapsed_s
        self._dropped_before = counts.dropped
        self._lock = threading.Lock()
        self._seen = 0
        self._intake: agent_intake.Intake[Sample] = agent_intake.Intake(SAMPLES_WAITING, BYTES_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"trial {alias}", daemon=True)

    def start(self) -> None:
        """Begins to compare."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it undecided, and waits for its thread unless it is the caller's."""
        self._stopping.set()
        self._intake.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_LAST_S)

    def counts(self) -> agent_trial_rules.Counts:
        """What it has seen up to now, earlier runs of the agent included."""
        with self._lock:
            elapsed_s = self._elapsed_before_s + time.monotonic() - self._since
            dropped = self._dropped_before + self._intake.dropped
            return dataclasses.replace(self._counts, elapsed_s=elapsed_s, dropped=dropped)

    def canary(self, serving: Any) -> Any:
        """Who answers the next request: the candidate for its share of them, else `serving`."""
        return self.candidate if self._picked() else serving

    def observe(self, observation: agent_engine.Observation) -> None:
        """Takes an answered request, if it is one to compare; microseconds."""
        by_candidate = observation.serving.model is self.candidate.model
        if self.terms.mode == agent_trial_rules.CANARY:
            if by_candidate:
                self._put(Sample(observation))
        elif not by_candidate and self._picked():
            self._put(Sample(observation))

    def fell_back(self, observation: agent_engine.Observation, why: str) -> None:
        """Takes a request that the candidate could not answer and the serving model did."""
        self._put(Sample(observation, why))

    def _picked(self) -> bool:
        with self._lock:
            number, self._seen = self._seen, self._seen + 1
        return agent_sampling.chosen(self.alias, number, self.terms.share)

    def _put(self, sample: Sample) -> None:
        if not self.ending:
            self._intake.put(sample, agent_intake.size_of(sample.observation.inputs, sample.observation.answer.outputs))

    # ---- the trial's own thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a container may forbid it; the share holds all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        resting_until, saved_at, saved = 0.0, time.monotonic(), self._counts
        while not self._stopping.is_set():
            now = time.monotonic()
            if now < resting_until:
                self._stopping.wait(min(resting_until - now, _TURN_S))
            elif (sample := self._intake.take(_TURN_S)) is not None:
                spent_s = self._compare(sample)
                share = self.terms.cpu_share / self._threads
                resting_until = time.monotonic() + spent_s * (1.0 - share) / share
                del sample  # or its arrays would wait for the next one
            if self._stopping.is_set():
                return  # whatever took so long: the trial may be another agent's by now
            looked, end = agent_trial_rules.decide(self.terms, self.counts())
            with self._lock:
                self._counts = looked
                self._rebase(looked)
            if end is not None and self._finish(end):
                return
            # A look is spent before the next sample is taken, so that a crash cannot give it back.
            spent = (looked.promotion_looks, looked.refusal_looks) != (saved.promotion_looks, saved.refusal_looks)
            if spent or time.monotonic() - saved_at >= SAVE_S:
                with contextlib.suppress(
                    OSError
                ):  # a full disk: what could not be kept is lost to a crash, not to the trial
                    self.save(self)
                saved_at, saved = time.monotonic(), looked

    def _finish(self, end: agent_trial_rules.End) -> bool:
        """Whether the end could be kept; without that nothing may follow from it, and the trial goes on."""
        self.ending = True
        try:
            self.ended(self, end)
        except OSError:
            self.ending = False
            self._stopping.wait(_TURN_S)
        return self.ending

    def _rebase(self, counts: agent_trial_rules.Counts) -> None:
        """Time and drops go on from these counts."""
        self._since, self._elapsed_before_s = time.monotonic(), counts.elapsed_s
        self._dropped_before = counts.dropped - self._intake.dropped

    def _compare(self, sample: Sample) -> float:
        """Counts one sample; returns the seconds of computing it took."""
        started = time.monotonic(), time.thread_time()
        try:
            found = self._judged(sample, started)
        except Exception:  # whatever a model makes of its inputs, the trial must go on to its end
            found = ("errors", sample.observation.answer.computed_ms, 0.0)
        if found is not None:
            what, serving_ms, candidate_ms = found
            with self._lock:
                new = {
                    what: getattr(self._counts, what) + 1,
                    "serving_ms": self._counts.serving_ms + serving_ms,
                    "candidate_ms": self._counts.candidate_ms + candidate_ms,
                }
                self._counts = dataclasses.replace(self._counts, **new)
            if what not in ("agreed", "slow"):
                self.disagreed(sample.observation)
        return self._spent_s(started)

    def _judged(self, sample: Sample, started: tuple[float, float]) -> tuple[str, float, float] | None:
        """(what it counts as, computing of the serving model, and of the candidate in ms); None: it says nothing."""
        observation, canary = sample.observation, self.terms.mode == agent_trial_rules.CANARY
        answered_ms = observation.answer.computed_ms
        if sample.failed:
            return "errors", answered_ms, 0.0
        other = self._serving(self.alias) if canary else self.candidate
        try:
            outputs: Mapping[str, Array] = other.model.predict(observation.inputs) if other is not None else {}
        except agent_guard.GoneError:
            outputs = {}
        except (agent_check.InputError, agent_engine.NotReadyError):
            # Of a canary the candidate answered what the serving model cannot: nobody knows whether rightly.
            return None if canary else ("errors", answered_ms, 0.0)
        if not outputs:
            return None
        other_ms = self._spent_s(started) * 1000.0
        serving, new = (outputs, observation.answer.outputs) if canary else (observation.answer.outputs, outputs)
        serving_ms, candidate_ms = (other_ms, answered_ms) if canary else (answered_ms, other_ms)
        if agent_agreement.dispute(self.terms.measure, serving, new):
            return "disagreed", serving_ms, candidate_ms
        slow = 0.0 < self.terms.slowest_ms < candidate_ms
        return "slow" if slow else "agreed", serving_ms, candidate_ms

    def _spent_s(self, started: tuple[float, float]) -> float:
        """Computing since then: of this thread, or what passed where the model computes in other threads or a process."""
        passed_s, own_s = time.monotonic() - started[0], time.thread_time() - started[1]
        return passed_s if self._elsewhere else own_s
