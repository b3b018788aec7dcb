"""Whether two answers of a detector show the same objects (pure): decoded, thinned out, and matched by class and overlap.

A detector answers boxes [1, a, 4] and scores [1, a, c] for `a` anchors or candidates. Two codings are known:

    ssd       boxes are (ty, tx, th, tw) with variances 10, 10, 5, 5 relative to the standard anchors of SSD (`anchors`), scores
              are logits, class 0 is the background (TensorFlow's Object Detection API trains such)
    corners   boxes are corners (two opposite ones, in any unit), scores are probabilities of every class

Two answers agree when the share of matched objects is `share` or more: an object seen with `score` or more must be seen by the
other with the same class, an overlap of `iou`, and `score` less `slack`, so that a score beside the threshold is no dispute.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SSD, CORNERS = "ssd", "corners"
SUPPRESSION_IOU = 0.5  # of boxes of one class that overlap more, the best one stays
OBJECTS_LIMIT = 300  # the best ones of an answer: a broken model may see thousands
_MAPS = (19, 10, 5, 3, 2, 1)  # cells per side
_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
_FIRST = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))
_VARIANCES = np.array([10.0, 10.0, 5.0, 5.0])
_LARGEST_LOGIT = 60.0


class DetectionsError(Exception):
    """The outputs are not those of such a detector; the message says why."""


@dataclass(frozen=True)
class Objects:
    """`boxes` [n, 4] are corners (low, low, high, high), the best score first."""

    boxes: Array
    kinds: Array
    scores: Array


@dataclass(frozen=True)
class Rule:
    """How answers are read and compared; `boxes` and `scores` name outputs, empty: found by their shapes."""

    coding: str = SSD
    boxes: str = ""
    scores: str = ""
    score: float = 0.5
    slack: float = 0.1
    iou: float = 0.5
    share: float = 1.0


def share(rule: Rule, one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """The share of objects that both see, 0 to 1; 1 when neither sees any. Raises DetectionsError."""
    lowest = max(rule.score - rule.slack, 0.0)
    left, right = decode(rule, one, lowest), decode(rule, other, lowest)
    pairs = overlaps(left.boxes, right.boxes) * (left.kinds[:, np.newaxis] == right.kinds)
    sure = [left.scores >= rule.score, right.scores >= rule.score]
    wanted = int(sure[0].sum() + sure[1].sum())
    found = 0
    while pairs.size:
        row, column = np.unravel_index(int(pairs.argmax()), pairs.shape)
        if pairs[row, column] < rule.iou or pairs[row, column] <= 0.0:
            break
        found += int(sure[0][row]) + int(sure[1][column])
        pairs[row, :] = pairs[:, column] = -1.0
    return found / wanted if wanted else 1.0


def decode(rule: Rule, outputs: Mapping[str, Array], lowest: float) -> Objects:
    """The objects with a score of `lowest` or more. Raises DetectionsError."""
    coded, given = _parts(rule, outputs)
    if rule.coding == SSD:
        given = 1.0 / (1.0 + np.exp(-np.clip(given[:, 1:], -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    at, kinds = np.nonzero(given >= lowest)
    scores = given[at, kinds]
    best = np.argsort(-scores, kind="stable")[:OBJECTS_LIMIT]
    at, kinds, scores = at[best], kinds[best], scores[best]
    boxes = _from_anchors(coded[at], at, len(coded)) if rule.coding == SSD else coded[at]
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    kept = _thinned(boxes, kinds)
    return Objects(boxes[kept], kinds[kept], scores[kept])


def overlaps(one: Array, other: Array) -> Array:
    """Intersection over union of boxes [a, 4] and [b, 4], as [a, b]."""
    low = np.maximum(one[:, np.newaxis, :2], other[np.newaxis, :, :2])
    high = np.minimum(one[:, np.newaxis, 2:], other[np.newaxis, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (one, other)]
    union = areas[0][:, np.newaxis] + areas[1][np.newaxis] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0.0))


@functools.cache
def anchors() -> Array:
    """The standard anchors for 300 x 300, in the model's order, [1917, 4]: centre y, centre x, height, width."""
    parts = []
    for number, cells in enumerate(_MAPS):
        between = math.sqrt(_SCALES[number] * _SCALES[number + 1])
        shapes = _FIRST if number == 0 else (*((_SCALES[number], ratio) for ratio in _RATIOS), (between, 1.0))
        sizes = np.array([(scale / math.sqrt(ratio), scale * math.sqrt(ratio)) for scale, ratio in shapes])
        middles = (np.arange(cells) + 0.5) / cells
        centres = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 1, 2)
        around = np.broadcast_to(centres, (cells * cells, len(shapes), 2))
        parts.append(np.concatenate([around, np.broadcast_to(sizes, around.shape)], axis=2).reshape(-1, 4))
    return np.concatenate(parts)


def _from_anchors(coded: Array, at: Array, count: int) -> Array:
    all_anchors = anchors()
    if count != len(all_anchors):
        raise DetectionsError(f"the detector has {count} anchors, those of SSD are {len(all_anchors)}; use corners")
    origin = all_anchors[at]
    parts = coded / _VARIANCES
    centres = parts[:, :2] * origin[:, 2:] + origin[:, :2]
    halves = np.exp(np.clip(parts[:, 2:], -20.0, 20.0)) * origin[:, 2:] / 2.0
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _parts(rule: Rule, outputs: Mapping[str, Array]) -> tuple[Array, Array]:
    boxes = [rule.boxes] if rule.boxes else [n for n, a in outputs.items() if a.ndim == 3 and a.shape[2] == 4]
    scores = [rule.scores] if rule.scores else [n for n, a in outputs.items() if a.ndim == 3 and n not in boxes]
    if len(boxes) != 1 or len(scores) != 1 or boxes[0] not in outputs or scores[0] not in outputs:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        raise DetectionsError(f"which outputs are boxes and scores is not clear, name them: {shapes}")
    found = outputs[boxes[0]], outputs[scores[0]]
    if not all(each.ndim == 3 and each.shape[0] == 1 for each in found) or found[0].shape[1:] != (found[1].shape[1], 4):
        raise DetectionsError(f"{boxes[0]} is {list(found[0].shape)} and {scores[0]} is {list(found[1].shape)}")
    coded, given = (each[0].astype(np.float64) for each in found)
    if not (np.isfinite(coded).all() and np.isfinite(given).all()):
        raise DetectionsError("the answer has a number that is none (NaN or infinite)")
    return coded, given


def _thinned(boxes: Array, kinds: Array) -> list[int]:
    covers = (overlaps(boxes, boxes) > SUPPRESSION_IOU) & (kinds[:, np.newaxis] == kinds)
    kept: list[int] = []
    for at in range(len(kinds)):
        if not covers[at, kept].any():
            kept.append(at)
    return kept
