"""Answers to counts per sample that add up, and the one number that counts make (pure).

`detections`: F1 of boxes; `top1`: the share of samples with the same or right class; `close`: the share of samples whose every
number is within a tolerance. The counterpart is the source model's answer, or labels for the first two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import detections, runtimes, samples

Array = npt.NDArray[Any]
Answers = Sequence[Mapping[str, Array]]  # outputs by name, one for each sample
METRICS = ("detections", "top1", "close")
LABELS = {"detections": "boxes", "top1": "labels"}  # the array that holds them


class ScoreError(ValueError):
    """The metric does not fit the model or the samples; the message says why."""


class Metric(msgspec.Struct, frozen=True):
    """`absolute` and `relative` are the tolerance of `close`."""

    name: str
    absolute: float = 0.0
    relative: float = 0.0


class Scorer:
    """Counts [samples, classes + 1, 3] of answers: (right, wrong, missed) for each class."""

    def __init__(
        self, metric: Metric, outputs: Sequence[runtimes.Tensor], held: samples.Samples, source: Answers
    ) -> None:
        """Raises ScoreError. `source` are the source model's answers to all of `held`."""
        self._metric, self._held, self._source = metric, held, source
        self.against = "labels" if LABELS.get(metric.name, "") in held.company else "source"
        shapes = {name: array.shape for name, array in source[0].items()}
        self._classes = 0
        self._anchors = np.zeros((0, 4))
        self._check(outputs, shapes)
        if metric.name == "detections":
            self._wanted = [self._boxes_wanted(at) for at in range(held.count)]

    @property
    def title(self) -> str:
        """The metric with its parameters, for people."""
        if self._metric.name == "detections":
            return f"detections F1 (score {detections.SCORE}, IoU {detections.OVERLAP}) against {self.against}"
        if self._metric.name == "close":
            return f"share within {self._metric.absolute:g} + {self._metric.relative:g} |source| against source"
        return f"top-1 against {self.against}"

    def count(self, answers: Answers, begin: int = 0) -> Array:
        """Counts of answers to the samples from `begin` on, [len(answers), classes + 1, 3]."""
        counts = np.zeros((len(answers), self._classes + 1, 3))
        for at, answer in enumerate(answers):
            if self._metric.name == "detections":
                found = detections.decode(answer, self._anchors)
                counts[at] = detections.matched(found, self._wanted[begin + at], self._classes)
            elif self._metric.name == "top1":
                given, right = int(_first(answer).argmax()), self._class_wanted(begin + at)
                counts[at, right, 0 if given == right else 2] += 1
                counts[at, given, 1] += given != right
            else:
                counts[at, 0] = (1, 0, 0) if self._is_close(answer, self._source[begin + at]) else (0, 1, 1)
        return counts

    def _check(self, outputs: Sequence[runtimes.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        if self._metric.name == "detections":
            try:
                self._anchors = detections.anchors_for(shapes, self._held.company)
            except detections.DetectionsError as error:
                raise ScoreError(f"cannot count detections: {error}") from error
            self._classes = max(shape[2] for shape in shapes.values() if shape[2] != 4) - 1
        elif self._metric.name == "top1":
            if len(outputs) != 1 or _first(self._source[0]).size < 2:
                raise ScoreError("cannot count top1: the model must have one output with a number for each class")
            self._classes = _first(self._source[0]).size - 1
        elif self._metric.absolute <= 0 and self._metric.relative <= 0:
            raise ScoreError("cannot count close: say how close, with --tolerance ABSOLUTE RELATIVE")

    def _boxes_wanted(self, at: int) -> detections.Boxes:
        if self.against == "source":
            return detections.decode(self._source[at], self._anchors)
        kinds = self._held.company["classes"][at]
        given = kinds >= 0
        return detections.Boxes(self._held.company["boxes"][at][given], kinds[given], np.ones(int(given.sum())))

    def _class_wanted(self, at: int) -> int:
        if self.against == "labels":
            return int(self._held.company["labels"][at])
        return int(_first(self._source[at]).argmax())

    def _is_close(self, answer: Mapping[str, Array], wanted: Mapping[str, Array]) -> bool:
        return all(
            bool(np.allclose(answer[name], want, rtol=self._metric.relative, atol=self._metric.absolute))
            for name, want in wanted.items()
        )


def value(sums: Array) -> Array:
    """F1 of counts [..., classes + 1, 3] over all classes: right / (right + (wrong + missed) / 2); 1 where nothing is."""
    right, wrong, missed = (sums[..., at].sum(axis=-1) for at in range(3))
    whole = right + (wrong + missed) / 2
    return np.asarray(np.divide(right, whole, out=np.ones_like(whole), where=whole > 0))


def recalls(counts: Array) -> tuple[Array, Array]:
    """(recall, how many were wanted) for each class, of counts [samples, classes + 1, 3]."""
    sums = counts.sum(axis=0)
    wanted = sums[:, 0] + sums[:, 2]
    return np.divide(sums[:, 0], wanted, out=np.ones_like(wanted), where=wanted > 0), wanted


def _first(answer: Mapping[str, Array]) -> Array:
    return next(iter(answer.values())).ravel()
