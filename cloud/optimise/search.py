"""Measures candidates as far as it pays, and picks: every form once and whole, settings only of forms that may win.

The pruned search gives up early on three grounds, each told in the outcome: a slice of the evaluation set already shows
that a form cannot keep the margin; a form's plain candidate was refused, so its settings need no look; a form's plain
candidate is so much slower than the best that no setting makes up for it. `exhaustive` does none of that.

Latencies are taken in turns with the source's, round by round, and compared as ratios: other work on the machine meets both.
The finalists and the source then take turns again, all of them.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import bench, candidates, forms, gate, outcomes, precision, samples, scores, targets, worker

Array = npt.NDArray[Any]
SLICE = 24  # samples of the evaluation set that decide whether the rest is worth it
SLOW = 1.6  # a form's plain candidate this much slower than the best one is not tried with other settings
QUICK_SLOW = 1.15  # a candidate this much slower than the best after one round is not measured on
FINALISTS = 4
SAME = 0.02  # latencies closer than this are the same; then the smaller and plainer wins
NOISE, TURNS = 0.10, 0.75  # closer than this they are, too, unless one lost more than this part of the finals' turns


class Entrant(Protocol):
    """A candidate that is loaded (bench.Running)."""

    size_bytes: int
    greeting: worker.Greeting

    def time(self, runs: int) -> Sequence[float]:
        """Milliseconds of calls."""

    def answer(self, begin: int, end: int) -> tuple[Sequence[Mapping[str, Array]], bool]:
        """(answers to samples, whether all are finite)."""

    def close(self) -> None:
        """Ends it."""


class Lab(Protocol):
    """Where candidates come to life; raises forms.FormError or bench.BenchError."""

    def enter(self, candidate: candidates.Candidate) -> Entrant:
        """The candidate, loaded."""

    def probed(self, candidate: candidates.Candidate) -> str:
        """What its runtime computes float32 models in."""


class Plan(msgspec.Struct, frozen=True, rename="camel"):
    """How much is measured: `rounds` of `runs` calls each."""

    exhaustive: bool = False
    rounds: int = 6
    runs: int = 5
    final_rounds: int = 12


class Search:
    """One search. `told` hears one line for each candidate."""

    def __init__(
        self,
        lab: Lab,
        metric: scores.Metric,
        held: samples.Samples,
        bounds: gate.Bounds,
        target: targets.Target,
        plan: Plan,
        told: Callable[[str], None],
    ) -> None:
        self._lab, self._metric, self._held = lab, metric, held
        self._bounds, self._target, self._plan, self._told = bounds, target, plan, told
        self._found: dict[str, outcomes.Outcome] = {}
        self._turns_ms: dict[str, list[float]] = {}  # of the finalists: their median in each turn

    def run(self, listed: Sequence[candidates.Candidate]) -> outcomes.Figures:
        """Raises scores.ScoreError for a metric that does not fit; forms.FormError, bench.BenchError if the source fails."""
        began = time.monotonic()
        first = candidates.source(listed)
        self._source = self._lab.enter(first)
        try:
            self._reference, finite = self._source.answer(0, self._held.count)
            self._scorer = scores.Scorer(self._metric, self._source.greeting.outputs, self._held, self._reference)
            self._counts = self._scorer.count(self._reference)
            self._enter_source(first, finite)
            others = [one for one in listed if one != first]
            for one in sorted(others, key=lambda each: not each.plain):
                outcome = self._refined(one) if not self._plan.exhaustive and not one.plain else self._whole(one)
                self._found[one.name] = outcome
                self._told(_line(outcome))
            self._finals(listed)
        finally:
            self._source.close()
        found = tuple(self._found[one.name] for one in listed)
        measured = sum(one.accuracy is not None for one in found)
        return outcomes.Figures(
            outcomes=found,
            best=_pick(found, self._turns_ms),
            against=self._scorer.against,
            metric=self._scorer.title,
            exhaustive=self._plan.exhaustive,
            measured=measured,
            seconds=round(time.monotonic() - began, 1),
        )

    def _enter_source(self, first: candidates.Candidate, finite: bool) -> None:
        took = [ms for _ in range(self._plan.rounds) for ms in self._source.time(self._plan.runs)]
        self._source_ms = statistics.median(took)
        accuracy = gate.compare(self._counts, self._counts, self._bounds.block)
        outcome = _greeted(outcomes.begun(first), self._source)
        if not finite:
            raise bench.BenchError("the source answers the evaluation set with NaN or infinity")
        self._found[first.name] = msgspec.structs.replace(
            outcome,
            state=outcomes.SOURCE,
            effective=self._lab.probed(first),
            accuracy=accuracy,
            **_timing(1.0, self._source_ms, took),
        )

    def _refined(self, one: candidates.Candidate) -> outcomes.Outcome:
        """A candidate with other settings than the plain one of its form, given up as early as possible."""
        outcome = outcomes.begun(one)
        plain = next((each for each in self._found.values() if _is_plain_of(each, one)), None)
        if plain is not None and plain.state == outcomes.REFUSED:
            return _passed_over(outcome, f"its plain form was refused: {plain.reasons[0].code}")
        best = min(each.ratio for each in self._found.values() if each.state in (outcomes.SOURCE, outcomes.ACCEPTED))
        if plain is not None and plain.ratio > SLOW * best:
            return _passed_over(outcome, f"its plain form takes {plain.ratio / best:.1f} times as long as the best")
        return self._whole(one, best)

    def _whole(self, one: candidates.Candidate, best: float = 0.0) -> outcomes.Outcome:
        """Measured on all grounds; with `best` only while it is not slower than that ratio by QUICK_SLOW."""
        outcome = outcomes.begun(one)
        try:
            entrant = self._lab.enter(one)
        except forms.FormError as error:
            return outcome.with_reasons([gate.Reason("NOT_MADE", str(error))])
        except bench.BenchError as error:
            return outcome.with_reasons([gate.Reason("NOT_LOADED", str(error))])
        try:
            return self._measured(one, _greeted(outcome, entrant), entrant, best)
        except bench.BenchError as error:
            return outcome.with_reasons([gate.Reason("NOT_LOADED", str(error))])
        finally:
            entrant.close()

    def _measured(
        self, one: candidates.Candidate, outcome: outcomes.Outcome, entrant: Entrant, best: float
    ) -> outcomes.Outcome:
        own, source = entrant.greeting, self._source.greeting
        reasons = list(gate.of_schema((source.inputs, source.outputs), (own.inputs, own.outputs)))
        if reasons:
            return outcome.with_reasons(reasons)
        if best:
            quick = self._ratio(entrant, 1)[0]
            if quick > QUICK_SLOW * best:
                timed = msgspec.structs.replace(outcome, ratio=quick, latency_ms=quick * self._source_ms)
                return _passed_over(timed, f"it took {quick / best:.2f} times as long as the best in one round")
        answers, finite, accuracy = self._compared(entrant)
        if not finite:
            reasons.append(gate.Reason("NOT_FINITE", "an answer to the evaluation set holds NaN or infinity"))
        pairs = zip(answers, self._reference, strict=False)
        deviation = max(precision.deviation(answer, wanted) for answer, wanted in pairs)
        probed = self._lab.probed(one)
        effective = probed if one.form.precision == "float32" else precision.lower(one.precision, probed)
        ratio, took = self._ratio(entrant, self._plan.rounds)
        reasons += [*gate.of_accuracy(accuracy, self._bounds), *gate.of_precision(one.precision, effective, deviation)]
        timing = _timing(ratio, self._source_ms, took)
        limits = (self._target, one.runtime, one.form.kind, outcome.memory_bytes, timing["latency_ms"])
        filled = msgspec.structs.replace(outcome, effective=effective, deviation=deviation, accuracy=accuracy, **timing)
        return filled.with_reasons([*reasons, *gate.of_target(*limits)])

    def _compared(self, entrant: Entrant) -> tuple[list[Mapping[str, Array]], bool, gate.Accuracy]:
        """(answers, all finite, comparison) on a slice if that is hopeless, else on the whole evaluation set."""
        slice_ = min(SLICE, self._held.count)
        answers, finite = entrant.answer(0, slice_)
        counts = self._scorer.count(answers)
        accuracy = gate.compare(counts, self._counts[:slice_], self._bounds.block)
        if not self._plan.exhaustive and (gate.is_hopeless(accuracy, self._bounds) or not finite):
            return list(answers), finite, accuracy
        if slice_ < self._held.count:
            more, rest_finite = entrant.answer(slice_, self._held.count)
            counts = np.concatenate([counts, self._scorer.count(more, slice_)])
            answers, finite = [*answers, *more], finite and rest_finite
        return list(answers), finite, gate.compare(counts, self._counts, self._bounds.block)

    def _ratio(self, entrant: Entrant, rounds: int) -> tuple[float, list[float]]:
        """(median over rounds of its median as a part of the source's, all its calls)."""
        ratios, took = [], []
        for _ in range(rounds):
            source = statistics.median(self._source.time(self._plan.runs))
            own = self._timed(entrant)
            took += own
            ratios.append(statistics.median(own) / source)
        return statistics.median(ratios), took

    def _timed(self, entrant: Entrant) -> list[float]:
        return list(entrant.time(self._plan.runs))

    def _finals(self, listed: Sequence[candidates.Candidate]) -> None:
        """The fastest accepted ones and the source take turns; their figures count."""
        accepted = [one for one in self._found.values() if one.state == outcomes.ACCEPTED]
        names = {one.name for one in sorted(accepted, key=lambda each: each.ratio)[:FINALISTS]}
        entrants: dict[str, Entrant] = {}
        with contextlib.ExitStack() as stack:
            for one in (each for each in listed if each.name in names):
                entrants[one.name] = self._lab.enter(one)
                stack.callback(entrants[one.name].close)
            source, own = self._turns(entrants)
        self._turns_ms = {name: [statistics.median(turn) for turn in turns] for name, turns in own.items()}
        self._source_ms = statistics.median(ms for turn in source for ms in turn)
        for name, outcome in self._found.items():
            if name in own:
                ratio = statistics.median(
                    statistics.median(mine) / statistics.median(theirs)
                    for mine, theirs in zip(own[name], source, strict=True)
                )
                timing = _timing(ratio, self._source_ms, [ms for turn in own[name] for ms in turn])
            elif outcome.state == outcomes.SOURCE:
                timing = _timing(1.0, self._source_ms, [ms for turn in source for ms in turn])
            else:
                timing = {"latency_ms": outcome.ratio * self._source_ms}
            self._found[name] = msgspec.structs.replace(outcome, **timing)

    def _turns(self, entrants: Mapping[str, Entrant]) -> tuple[list[list[float]], dict[str, list[list[float]]]]:
        source: list[list[float]] = []
        own: dict[str, list[list[float]]] = {name: [] for name in entrants}
        for _ in range(self._plan.final_rounds):
            source.append(list(self._source.time(self._plan.runs)))
            for name, entrant in entrants.items():
                own[name].append(self._timed(entrant))
        return source, own


def _pick(found: Sequence[outcomes.Outcome], turns_ms: Mapping[str, Sequence[float]]) -> str:
    """The fastest accepted candidate, or "" when the source is as fast: then nothing was optimised."""
    accepted = [one for one in found if one.state == outcomes.ACCEPTED and one.kind != "source"]
    if not accepted:
        return ""
    fastest = min(accepted, key=lambda one: one.ratio)
    near = [one for one in accepted if _is_same(one, fastest, turns_ms)]
    best = min(near, key=lambda one: (one.settings.threads, one.size_bytes, one.ratio))
    source = [one.ratio for one in found if one.kind == "source" and one.state in (outcomes.SOURCE, outcomes.ACCEPTED)]
    return best.name if best.ratio < min(source) * (1 - SAME) else ""


def _is_same(one: outcomes.Outcome, fastest: outcomes.Outcome, turns_ms: Mapping[str, Sequence[float]]) -> bool:
    """Whether `one` is as fast as the fastest, as far as these turns can tell."""
    if one.ratio <= fastest.ratio * (1 + SAME):
        return True
    if one.ratio > fastest.ratio * (1 + NOISE) or one.name not in turns_ms or fastest.name not in turns_ms:
        return False
    pairs = list(zip(turns_ms[one.name], turns_ms[fastest.name], strict=True))
    return sum(mine > theirs for mine, theirs in pairs) <= TURNS * len(pairs)


def _is_plain_of(found: outcomes.Outcome, one: candidates.Candidate) -> bool:
    plain = found.settings.level == "all" and found.settings.threads == 1
    same = (found.form, found.runtime, found.settings.hint) == (one.form.name, one.runtime, one.settings.hint)
    return plain and same


def _greeted(outcome: outcomes.Outcome, entrant: Entrant) -> outcomes.Outcome:
    greeting = entrant.greeting
    return msgspec.structs.replace(
        outcome,
        size_bytes=entrant.size_bytes,
        load_ms=round(greeting.load_ms, 2),
        memory_bytes=greeting.memory_bytes,
        runtime_version=greeting.version,
        provider=greeting.provider,
    )


def _timing(ratio: float, source_ms: float, took: Sequence[float]) -> dict[str, Any]:
    p99_ms = float(np.percentile(np.asarray(took), 99))
    return {"ratio": ratio, "latency_ms": ratio * source_ms, "p99_ms": p99_ms, "runs": len(took)}


def _passed_over(outcome: outcomes.Outcome, why: str) -> outcomes.Outcome:
    return msgspec.structs.replace(outcome, state=outcomes.PASSED_OVER, reasons=(gate.Reason("PASSED_OVER", why),))


def _line(outcome: outcomes.Outcome) -> str:
    why = "; ".join(f"{one.code}: {one.text}" for one in outcome.reasons)
    return f"{outcome.name}: {outcome.state}" + (f", {why}" if why else "")
