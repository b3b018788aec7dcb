"""The one place where models compute: a budget of cores shared fairly, deadlines in the queue, figures per alias.

In: (alias, arrays, deadline) from any door. Out: an Answer that says which component version gave it. The computing happens
on the caller's thread once it has one of the `cores` places: with a free place there is no hand-over between threads,
which would cost more than a small model. Fair: a free place goes to the waiting alias that has computed least, so a slow
model cannot starve a quick one. The model is chosen when computing begins, so a request never mixes two versions.
"""

from __future__ import annotations

import bisect
import collections
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import agent_batches
import agent_check
import agent_guard
import numpy as np

Array = np.ndarray[Any, Any]
WAITING_LIMIT = 256  # requests that wait for one alias; one more is refused at once
LATENCY_BOUNDS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class NotReadyError(Exception):
    """No model answers for this alias (yet)."""


class BusyError(Exception):
    """The deadline passed in the queue, or the queue is full."""


@dataclass(frozen=True)
class Answer:
    """`queued_ms` is the time before computing, `computed_ms` that of the model."""

    outputs: dict[str, Array]
    component: str
    version: str
    queued_ms: float
    computed_ms: float


@dataclass(frozen=True)
class Observation:
    """One answered request, as observers see it; the arrays may be kept, never written to."""

    alias: str
    inputs: Mapping[str, Array]
    answer: Answer
    serving: Any  # agent_aliases.Serving that gave the answer


@dataclass
class Figures:
    """What an alias did since the agent started; `latency` counts by LATENCY_BOUNDS_MS, the last beyond them."""

    count: int = 0
    errors: int = 0
    refused: int = 0  # by a full queue or a deadline
    joined: int = 0  # answered in a run that another request led (agent_batches.py)
    computed_s: float = 0.0
    queued_s: float = 0.0
    last_at: float = 0.0  # epoch seconds
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))

    def add(self, took_s: float, queued_s: float) -> None:
        """One request: all its time, and what of it was waiting."""
        self.count += 1
        self.queued_s += queued_s
        self.last_at = time.time()
        self.latency[bisect.bisect_left(LATENCY_BOUNDS_MS, took_s * 1000)] += 1

    def quantile_ms(self, part: float) -> float:
        """The bound below which this part of the answers took; the last bound for what was beyond it."""
        wanted, seen = part * sum(self.latency), 0
        for bound, count in zip((*LATENCY_BOUNDS_MS, LATENCY_BOUNDS_MS[-1]), self.latency, strict=True):
            seen += count
            if seen >= wanted and seen:
                return float(bound)
        return 0.0


class _Place:
    """A caller that waits for a core; `given` is set when it has one."""

    def __init__(self) -> None:
        self.given = threading.Event()


class Engine:
    """`serving` names what answers for an alias now (agent_aliases.Aliases.serving); `cores` requests compute at a time."""

    def __init__(self, serving: Callable[[str], Any], cores: int = 1, waiting_limit: int = WAITING_LIMIT) -> None:
        self._serving = serving
        self._waiting_limit = waiting_limit
        self._free = max(1, cores)
        self._lock = threading.Lock()
        self._waiting: dict[str, collections.deque[_Place]] = {}
        # What fairness goes by; an alias that was idle starts level with the others.
        self._used_s: dict[str, float] = {}
        self._figures: dict[str, Figures] = {}
        self._batches = agent_batches.Batches(self._run, self._refused)
        # Each is called on the caller's thread after every answer, outside of any lock; it must take microseconds and not raise.
        self.observers: list[Callable[[Observation], None]] = []
        # Picks who answers one request, given what serves the alias: a canary answers a share of them.
        self.route: Callable[[str, Any], Any] = lambda alias, serving: serving
        # Hears of a request that the one who was picked could not answer and the serving model did, after the observers.
        self.fell_back: Callable[[Observation, str], None] = lambda observation, why: None
        # Brings a model that was taken out of memory back by the deadline; returns why it could not (agent_aliases.Aliases.wake).
        self.wake: Callable[[str, float], str] = lambda alias, deadline: f"{alias} is not in memory"

    def predict(self, alias: str, inputs: Mapping[str, Array], deadline: float) -> Answer:
        """`deadline` by time.monotonic(). Raises NotReadyError, BusyError, agent_check.InputError."""
        terms = getattr(getattr(self._serving(alias), "settings", None), "batching", None)
        if terms is None:
            run = self._run(alias, lambda: inputs, deadline)
        else:
            begun = time.monotonic()
            run, joined = self._batches.predict(alias, inputs, deadline, terms)
            if joined:
                self._joined(alias, time.monotonic() - begun, run.answer.queued_ms / 1000)
        if self.observers:
            observation = Observation(alias, inputs, run.answer, run.serving)
            for observe in self.observers:
                observe(observation)
            if run.why:
                self.fell_back(observation, run.why)
        answer: Answer = run.answer
        return answer

    def _run(self, alias: str, take: Callable[[], Mapping[str, Array]], deadline: float) -> agent_batches.Run:
        """Computes what `take` returns once a place is free."""
        while True:
            try:
                return self._compute(alias, take, deadline)
            except agent_guard.GoneError:  # evicted, or being exchanged where old and new do not fit together
                reason = self.wake(alias, deadline)
            if reason:
                raise self._refused(alias, reason)

    def _compute(self, alias: str, take: Callable[[], Mapping[str, Array]], deadline: float) -> agent_batches.Run:
        """One try; raises agent_guard.GoneError when the model was not in memory, and nothing was counted."""
        begun = started = time.monotonic()
        serving = self._serving(alias)
        if serving is None:
            raise NotReadyError(f"no model answers for {alias} yet")
        waited, why = not self._take_free_place(alias), ""
        if waited:
            started = self._wait_for_place(alias, deadline)
        try:
            if waited:
                serving = self._serving(alias)
                if serving is None:
                    raise NotReadyError(f"no model answers for {alias} any more")
            chosen = self.route(alias, serving)
            if chosen is serving:
                outputs = serving.model.predict(take())
            else:
                serving, outputs, why = _either(chosen, serving, take())
        except agent_guard.GoneError:
            with self._lock:
                self._pass_on()
            raise
        except BaseException:
            self._done(alias, begun, started, failed=True)
            raise
        computed_s = self._done(alias, begun, started, failed=False)
        answer = Answer(outputs, serving.component, serving.version, (started - begun) * 1000, computed_s * 1000)
        return agent_batches.Run(answer, serving, why)

    def figures(self) -> dict[str, dict[str, Any]]:
        """For each alias that was asked: counts, latencies in ms, requests that wait now."""
        with self._lock:
            return {
                alias: {
                    "count": one.count,
                    "errors": one.errors,
                    "refused": one.refused,
                    "joined": one.joined,
                    "waiting": len(self._waiting.get(alias, ())) + self._batches.waiting(alias),
                    "mean_ms": round(one.computed_s / one.count * 1000, 3) if one.count else 0.0,
                    "computed_s": one.computed_s,
                    "queued_s": one.queued_s,
                    "last_at": one.last_at,
                    "p50_ms": one.quantile_ms(0.5),
                    "p99_ms": one.quantile_ms(0.99),
                    "latency_ms": dict(zip((*map(str, LATENCY_BOUNDS_MS), "more"), one.latency, strict=True)),
                }
                for alias, one in self._figures.items()
            }

    def forget(self, alias: str) -> None:
        """The alias is gone; its figures go, too."""
        with self._lock:
            self._figures.pop(alias, None)
            self._used_s.pop(alias, None)

    # ---- places ------------------------------------------------------------------------------------------------------

    def _take_free_place(self, alias: str) -> bool:
        with self._lock:
            if alias not in self._figures:
                self._figures[alias] = Figures()
            if not self._free or self._waiting:
                return False
            self._free -= 1
            return True

    def _wait_for_place(self, alias: str, deadline: float) -> float:
        """When it came; raises BusyError."""
        place = self._line_up(alias)
        if place is None or place.given.wait(max(0.0, deadline - time.monotonic())):
            return time.monotonic()
        with self._lock:
            if place.given.is_set():  # it came in the moment we gave up
                return time.monotonic()
            self._leave(alias, place)
        raise self._refused(alias, f"the deadline passed while {alias} was computing for others")

    def _line_up(self, alias: str) -> _Place | None:
        """A place in the queue, None if one to compute came free meanwhile."""
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return None
            if len(self._waiting.get(alias, ())) >= self._waiting_limit:
                self._of(alias).refused += 1
                raise BusyError(f"{self._waiting_limit} requests wait for {alias} already")
            queue = self._waiting.setdefault(alias, collections.deque())
            if not queue:
                self._used_s[alias] = max(self._used_s.get(alias, 0.0), self._least_used())
            place = _Place()
            queue.append(place)
            return place

    def _refused(self, alias: str, why: str) -> BusyError:
        """Counts a request that is not computed."""
        with self._lock:
            self._of(alias).refused += 1
        return BusyError(why)

    def _of(self, alias: str) -> Figures:
        """The figures of an alias, which may have been forgotten meanwhile; under the lock."""
        return self._figures.get(alias) or self._figures.setdefault(alias, Figures())

    def _leave(self, alias: str, place: _Place) -> None:
        queue = self._waiting[alias]
        queue.remove(place)
        if not queue:
            del self._waiting[alias]

    def _least_used(self) -> float:
        return min((self._used_s.get(alias, 0.0) for alias in self._waiting if self._waiting[alias]), default=0.0)

    def _done(self, alias: str, begun: float, started: float, failed: bool) -> float:
        """Gives the place to who waits, and counts; returns the seconds of computing."""
        now = time.monotonic()
        computed_s = now - started
        with self._lock:
            self._used_s[alias] = self._used_s.get(alias, 0.0) + computed_s
            figures = self._of(alias)
            figures.errors += failed
            figures.computed_s += computed_s
            figures.add(now - begun, started - begun)
            self._pass_on()
        return computed_s

    def _joined(self, alias: str, took_s: float, queued_s: float) -> None:
        """Counts a request that was answered in another one's run."""
        with self._lock:
            figures = self._of(alias)
            figures.joined += 1
            figures.add(took_s, queued_s)

    def _pass_on(self) -> None:
        """The place goes to the waiting alias that computed least; under the lock."""
        if not self._waiting:
            self._free += 1
            return
        following = min(self._waiting, key=lambda name: self._used_s.get(name, 0.0))
        place = self._waiting[following][0]
        self._leave(following, place)
        place.given.set()


def _either(chosen: Any, serving: Any, inputs: Mapping[str, Array]) -> tuple[Any, dict[str, Array], str]:
    """(who answered, the answer, why not `chosen`): a candidate that cannot answer costs nobody an answer."""
    why = ""
    try:
        return chosen, chosen.model.predict(inputs), ""
    except agent_guard.GoneError:
        pass  # its trial ended in this moment
    except (agent_check.InputError, NotReadyError) as error:
        why = str(error)
    return serving, serving.model.predict(inputs), why
