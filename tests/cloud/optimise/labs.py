"""Labs for searches: latencies by a rule, so that a pick can be checked; answers by a rule, or from a real process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.optimise import bench, candidates, forms, precision, runtimes, samples, search, worker

Array = npt.NDArray[Any]
Cost = Callable[[candidates.Candidate], float]  # milliseconds of one call
INPUTS, OUTPUTS = (runtimes.Tensor("x", "float32", (1,)),), (runtimes.Tensor("scores", "float32", (1, 2)),)
GREETING = worker.Greeting("", 1.0, 1000, INPUTS, OUTPUTS, "1", "CPU")


class Paper:
    """Everything by rule: `loss` is the part of samples that a candidate gets wrong."""

    def __init__(self, held: samples.Samples, cost: Cost, loss: Callable[[candidates.Candidate], float]) -> None:
        self.entered: list[str] = []
        self.answered = 0
        self._held, self._cost, self._loss = held, cost, loss

    def enter(self, candidate: candidates.Candidate) -> PaperEntrant:
        self.entered.append(candidate.name)
        return PaperEntrant(self, self._held.count, self._cost(candidate), self._loss(candidate))

    def probed(self, candidate: candidates.Candidate) -> str:
        return "float32"


class PaperEntrant:
    """Wrong at evenly spread samples; each call takes the same."""

    size_bytes = 100
    greeting = GREETING

    def __init__(self, lab: Paper, count: int, cost_ms: float, loss: float) -> None:
        self._lab, self._cost_ms = lab, cost_ms
        wrong = set(np.linspace(0, count - 1, round(count * loss)).round().astype(int).tolist())
        self._right = [at not in wrong for at in range(count)]

    def time(self, runs: int) -> Sequence[float]:
        return [self._cost_ms] * runs

    def answer(self, begin: int, end: int) -> tuple[Sequence[Mapping[str, Array]], bool]:
        self._lab.answered += end - begin
        rows = [[0.0, 1.0] if right else [1.0, 0.0] for right in self._right[begin:end]]
        return [{"scores": np.array([row], np.float32)} for row in rows], True

    def close(self) -> None:
        """Nothing to end."""


class Timetable:
    """Real models, real processes and real answers, with latencies by rule."""

    def __init__(self, maker: forms.Maker, tester: bench.Bench, cost: Cost) -> None:
        self.entered: list[str] = []
        self._maker, self._bench, self._cost = maker, tester, cost

    def enter(self, candidate: candidates.Candidate) -> search.Entrant:
        self.entered.append(candidate.name)
        return _Timed(self._bench.start(candidate, self._maker.file(candidate.form)), self._cost(candidate))

    def probed(self, candidate: candidates.Candidate) -> str:
        return "float32"


class _Timed:
    def __init__(self, inner: bench.Running, cost_ms: float) -> None:
        self._inner, self._cost_ms = inner, cost_ms
        self.size_bytes, self.greeting = inner.size_bytes, inner.greeting

    def time(self, runs: int) -> Sequence[float]:
        return [self._cost_ms] * runs

    def answer(self, begin: int, end: int) -> tuple[Sequence[Mapping[str, Array]], bool]:
        return self._inner.answer(begin, end)

    def close(self) -> None:
        self._inner.close()


class Probing(Timetable):
    """A timetable that probes the runtime itself."""

    def probed(self, candidate: candidates.Candidate) -> str:
        return precision.probed(candidate)
