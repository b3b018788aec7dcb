"""Accepted, or refused with reasons (pure): the rules of "no loss in accuracy" as a promise that was measured.

A candidate is accepted only if the lower end of the interval of (candidate - source) is above -margin, no class that is
judged loses more recall than its bound, every answer is finite, names, types and shapes are the source's, it computes in
what it says, and it keeps the target's limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import interval, precision, runtimes, scores, targets

Array = npt.NDArray[Any]
CLASS_SAMPLES = 30  # a class that is wanted less often is told, not judged: one box is more than 3 % of it
CODES = {
    "NOT_MADE": "the form cannot be made of this model",
    "NOT_LOADED": "the runtime does not load it, or fails or crashes on the samples",
    "SCHEMA": "its inputs or outputs are not the source's",
    "NOT_FINITE": "an answer holds NaN or infinity",
    "MARGIN": "it may lose more than the margin",
    "CLASS_RECALL": "one class loses more recall than its bound",
    "PRECISION_LOWERED": "the runtime computes in less than the candidate says",
    "MEMORY": "it takes more memory than the target has for it",
    "LATENCY": "it is slower than the target allows",
    "RUNTIME": "the target serves with another runtime",
    "FORMAT": "the model agent takes ONNX files",
}


class Reason(msgspec.Struct, frozen=True):
    """`code` is a word of CODES; the text holds the figures."""

    code: str
    text: str


class Bounds(msgspec.Struct, frozen=True, rename="camel"):
    """What may be lost: of the metric (`margin`), and of any one class's recall (`class_margin`)."""

    margin: float
    class_margin: float
    block: int = 0


class Accuracy(msgspec.Struct, frozen=True, rename="camel"):
    """One comparison: values of both sides, the interval of their difference, the class that loses most recall."""

    samples: int
    source: float
    candidate: float
    low: float
    high: float
    confidence: float
    method: str
    worst_class: int
    worst_class_drop: float
    unjudged_classes: tuple[int, ...]


def compare(candidate: Array, source: Array, block: int) -> Accuracy:
    """The comparison of counts [samples, classes + 1, 3]."""
    # All classes together, as the value takes them: less work, the same numbers.
    pooled = [counts.sum(axis=1, keepdims=True) for counts in (candidate, source)]
    bounds = interval.paired(pooled[0], pooled[1], scores.value, block)
    own, wanted = scores.recalls(candidate)
    drops = scores.recalls(source)[0] - own
    judged = (wanted >= CLASS_SAMPLES) if (wanted >= CLASS_SAMPLES).any() else wanted > 0
    worst = int(np.where(judged, drops, -np.inf).argmax())
    return Accuracy(
        samples=len(candidate),
        source=float(scores.value(source.sum(axis=0))),
        candidate=float(scores.value(candidate.sum(axis=0))),
        low=bounds.low,
        high=bounds.high,
        confidence=bounds.confidence,
        method=bounds.method,
        worst_class=worst,
        worst_class_drop=float(drops[worst]) if judged.any() else 0.0,
        unjudged_classes=tuple(int(at) for at in np.flatnonzero((wanted > 0) & ~judged)),
    )


def of_accuracy(found: Accuracy, bounds: Bounds) -> tuple[Reason, ...]:
    """Reasons against what was compared."""
    reasons = []
    if found.low <= -bounds.margin and not (bounds.margin == 0 and found.low == 0):
        text = f"{found.candidate:.3f} against {found.source:.3f}: the difference may be {found.low:+.3f}, "
        reasons.append(Reason("MARGIN", f"{text}the margin is -{bounds.margin:g} ({found.samples} samples)"))
    if found.worst_class_drop > bounds.class_margin:
        text = f"class {found.worst_class} loses {found.worst_class_drop:.3f} of its recall, "
        reasons.append(Reason("CLASS_RECALL", f"{text}the bound is {bounds.class_margin:g}"))
    return tuple(reasons)


def is_hopeless(found: Accuracy, bounds: Bounds) -> bool:
    """Whether a part of the samples already shows that all of them will not do: even the upper end is below the margin."""
    return found.high < -bounds.margin


def of_schema(
    source: tuple[Sequence[runtimes.Tensor], Sequence[runtimes.Tensor]],
    found: tuple[Sequence[runtimes.Tensor], Sequence[runtimes.Tensor]],
) -> tuple[Reason, ...]:
    """Reasons against (inputs, outputs) that differ from the source's in name, type or shape."""
    reasons = []
    for kind, want, have in zip(("inputs", "outputs"), source, found, strict=True):
        if sorted(_key(one) for one in want) != sorted(_key(one) for one in have):
            told = ", ".join(f"{one.name} {one.dtype} {list(one.shape)}" for one in have)
            reasons.append(Reason("SCHEMA", f"its {kind} are {told}"))
    return tuple(reasons)


def of_precision(claimed: str, effective: str, deviation: float) -> tuple[Reason, ...]:
    """Reasons against a runtime that computes in less than was said; `deviation` as precision.deviation."""
    if precision.is_lower(effective, claimed):
        text = f"it says {claimed} and the runtime computes in {effective}; ask it for {claimed}"
        return (Reason("PRECISION_LOWERED", text),)
    if claimed == "float32" and deviation > precision.FLOAT32_NOISE:
        text = f"it says float32 and its answers are {deviation:.1e} of their range away from the source's"
        return (Reason("PRECISION_LOWERED", text),)
    return ()


def of_target(
    target: targets.Target, runtime: str, kind: str, memory_bytes: int, latency_ms: float
) -> tuple[Reason, ...]:
    """Reasons that lie in the target."""
    reasons = []
    if runtime != target.runtime:
        reasons.append(Reason("RUNTIME", f"{target.name} serves with {target.runtime}, this is {runtime}"))
    if kind == "ort":
        reasons.append(Reason("FORMAT", "the model agent takes ONNX files, to look into them before a runtime does"))
    if target.memory_bytes and memory_bytes > target.memory_bytes:
        text = f"{memory_bytes / 1e6:.1f} MB, {target.name} has {target.memory_bytes / 1e6:.1f} MB for it"
        reasons.append(Reason("MEMORY", text))
    if target.latency_ms and latency_ms > target.latency_ms:
        reasons.append(Reason("LATENCY", f"{latency_ms:.2f} ms, {target.name} allows {target.latency_ms:g} ms"))
    return tuple(reasons)


def _key(tensor: runtimes.Tensor) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, tensor.dtype, tensor.shape
