"""The interval of a paired difference by a block bootstrap (pure; the same counts and seed give the same numbers).

Frames of a video are not independent: a walker that is missed once is missed for seconds. So whole runs of neighbouring
samples are drawn (circular, so that all samples are drawn equally often), the same ones for both sides.
Künsch 1989; Politis and Romano 1992.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SEED = 20260101
DRAWS = 2000
CONFIDENCE = 0.95


class Interval(msgspec.Struct, frozen=True):
    """Bounds of (candidate - source); more is better."""

    low: float
    high: float
    confidence: float
    method: str


def block(samples: int) -> int:
    """Length of a run when none is given: the root of the number of samples, more than theory's cube root, to be safe."""
    return max(1, math.isqrt(samples))


def paired(
    candidate: Array, source: Array, value: Callable[[Array], Array], length: int = 0, draws: int = DRAWS
) -> Interval:
    """The interval of value(candidate) - value(source).

    `candidate` and `source` are counts [samples, …] that add up; `value` makes [draws] of sums [draws, …].
    """
    count = len(candidate)
    length = min(length or block(count), count)
    weights = _weights(count, length, draws)
    sums = [(weights @ one.reshape(count, -1)).reshape(draws, *one.shape[1:]) for one in (candidate, source)]
    differences = value(sums[0]) - value(sums[1])
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(differences, [tail, 100 - tail])
    method = f"paired circular block bootstrap, blocks of {length}, {draws} draws, seed {SEED}"
    return Interval(float(low), float(high), CONFIDENCE, method)


@functools.lru_cache(maxsize=4)  # hundreds of candidates are compared on the same samples
def _weights(count: int, length: int, draws: int) -> Array:
    """How often each sample is in each draw, [draws, count]."""
    random = np.random.default_rng(SEED)
    blocks = math.ceil(count / length)
    starts = random.integers(0, count, (draws, blocks))
    drawn = ((starts[:, :, np.newaxis] + np.arange(length)) % count).reshape(draws, -1)[:, :count]
    offsets = np.arange(draws)[:, np.newaxis] * count
    return np.bincount((drawn + offsets).ravel(), minlength=draws * count).reshape(draws, count).astype(float)
