"""Boxes of a single-shot detector: decoded, cleared of doubles, matched with others (pure).

The detector answers [1, a, 4] codes (ty, tx, th, tw; variances 10, 10, 5, 5) and [1, a, classes + 1] logits whose class 0 is
the background, for `a` anchors; TensorFlow's Object Detection API trains such.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SCORE, OVERLAP = 0.4, 0.5  # below the score there is no detection; from this IoU on two boxes mean the same thing
_VARIANCES = np.array([10.0, 10.0, 5.0, 5.0])
_MAPS = (19, 10, 5, 3, 2, 1)
_SCALES = (*np.linspace(0.2, 0.95, 6).tolist(), 1.0)
_FIRST = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # (scale, ratio) in the first map, which is reduced
SSD_ANCHORS = 1917


class DetectionsError(ValueError):
    """The outputs are not a detector's, or its anchors are not known."""


class Boxes(msgspec.Struct, frozen=True):
    """`boxes` [k, 4] (ymin, xmin, ymax, xmax), `classes` [k] counted from 1, `scores` [k], best first."""

    boxes: Array
    classes: Array
    scores: Array


def ssd_anchors() -> Array:
    """[1917, 4] (centre y, centre x, height, width) of a 300 x 300 SSD with six maps and a reduced first layer."""
    found = []
    for at, cells in enumerate(_MAPS):
        scale, following = _SCALES[at], _SCALES[at + 1]
        kinds = (
            _FIRST
            if at == 0
            else (*((scale, r) for r in (1.0, 2.0, 0.5, 3.0, 1 / 3)), ((scale * following) ** 0.5, 1.0))
        )
        sizes = np.array([[s / r**0.5, s * r**0.5] for s, r in kinds])
        centres = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        places = np.repeat(np.stack([y, x], axis=-1).reshape(-1, 2), len(kinds), axis=0)
        found.append(np.concatenate([places, np.tile(sizes, (cells * cells, 1))], axis=1))
    return np.concatenate(found)


def anchors_for(outputs: Mapping[str, tuple[int, ...]], company: Mapping[str, Array]) -> Array:
    """The anchors of a detector with outputs of these shapes. Raises DetectionsError."""
    codes, _ = _roles(outputs)
    count = outputs[codes][1]
    if "anchors" in company:
        given = company["anchors"]
        if given.shape != (count, 4):
            raise DetectionsError(f"anchors are {list(given.shape)}, {codes} wants [{count}, 4]")
        return given
    if count != SSD_ANCHORS:
        raise DetectionsError(
            f"{codes} has {count} anchors, which are not known; put an array `anchors` into the samples"
        )
    return ssd_anchors()


def decode(outputs: Mapping[str, Array], anchors: Array, score: float = SCORE, overlap: float = OVERLAP) -> Boxes:
    """The detections in the outputs of one call. Raises DetectionsError."""
    codes_name, logits_name = _roles({name: array.shape for name, array in outputs.items()})
    logits = outputs[logits_name][0, :, 1:].astype(np.float64)
    scores = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    at, kinds = np.nonzero(scores >= score)
    parts = outputs[codes_name][0][at].astype(np.float64) / _VARIANCES
    origin = anchors[at]
    centres = parts[:, :2] * origin[:, 2:] + origin[:, :2]
    sizes = np.exp(np.clip(parts[:, 2:], -20, 20)) * origin[:, 2:]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    order = np.argsort(-scores[at, kinds], kind="stable")
    found = Boxes(boxes[order], kinds[order] + 1, scores[at, kinds][order])
    kept = _suppressed(found, overlap)
    return Boxes(found.boxes[kept], found.classes[kept], found.scores[kept])


def matched(found: Boxes, wanted: Boxes, classes: int, overlap: float = OVERLAP) -> Array:
    """Counts [classes + 1, 3]: found and wanted, found only, wanted only; each wanted box is given to one found box."""
    counts = np.zeros((classes + 1, 3))
    for kind in np.union1d(found.classes, wanted.classes):
        own, other = found.boxes[found.classes == kind], wanted.boxes[wanted.classes == kind]
        pairs = _pairs(iou(own, other), overlap)
        counts[int(kind)] = pairs, len(own) - pairs, len(other) - pairs
    return counts


def iou(one: Array, other: Array) -> Array:
    """Intersection over union of boxes [a, 4] and [b, 4], as [a, b]."""
    low = np.maximum(one[:, np.newaxis, :2], other[np.newaxis, :, :2])
    high = np.minimum(one[:, np.newaxis, 2:], other[np.newaxis, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(each[:, 2:] - each[:, :2], 0, None), axis=1) for each in (one, other)]
    union = areas[0][:, np.newaxis] + areas[1][np.newaxis] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def _pairs(overlaps: Array, least: float) -> int:
    """How many pairs are formed, best overlap first."""
    left, pairs = overlaps.copy(), 0
    while left.size and left.max() >= least:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        left[row, :] = left[:, column] = -1.0
        pairs += 1
    return pairs


def _suppressed(found: Boxes, overlap: float) -> list[int]:
    """Indices that stay: a box goes when a better one of its class covers it."""
    kept: list[int] = []
    covers = (iou(found.boxes, found.boxes) >= overlap) & (found.classes[:, np.newaxis] == found.classes)
    for at in range(len(found.classes)):
        if not covers[at, kept].any():
            kept.append(at)
    return kept


def _roles(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str]:
    """The names of (codes, logits)."""
    codes = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    logits = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] != 4]
    if len(codes) != 1 or len(logits) != 1 or shapes[codes[0]][1] != shapes[logits[0]][1]:
        raise DetectionsError(f"a detector answers [1, a, 4] and [1, a, classes + 1], this model {dict(shapes)}")
    return codes[0], logits[0]
