"""Decodes the detector's answers: anchors, boxes, classes, and which of overlapping boxes stay (numpy only).

The detector takes an RGB image of 300 x 300 scaled to -1..1 and answers, for 1,917 anchors, `box_encodings` (ty, tx, th, tw
with variances 10, 10, 5, 5) and `class_predictions` (logits of 24 classes, 0 is the background). Its anchors lie on six
maps; each cell has one of every scale and ratio of its map. Boxes here are fractions of the image: top, left, bottom, right.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SIDE = 300
NAMES = [
    "background",
    "Bicycle",
    "Boot",
    "Laptop",
    "Person",
    "Chair",
    "Cattle",
    "Desk",
    "Cat",
    "Mouse",
    "Monitor",
    "Box",
    "Mug",
    "Cup",
    "StationaryBicycle",
    "Table",
    "Bottle",
    "HighHeels",
    "Vehicle",
    "Footwear",
    "Dog",
    "Book",
    "Camera",
    "Car",
]
_MAPS = (19, 10, 5, 3, 2, 1)
_LEAST, _MOST = 0.2, 0.95  # scales of the first and the last map
_RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
_FIRST = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # the first map has only three (scale, ratio)
_VARIANCES = np.array([10, 10, 5, 5], dtype=np.float32)


@dataclass(frozen=True)
class Detection:
    """One object: its class by name, the score of it, its box (top, left, bottom, right; fractions of the image)."""

    name: str
    score: float
    box: tuple[float, float, float, float]


@functools.cache
def anchors() -> Array:
    """All anchors in the model's order, [1917, 4]: centre y, centre x, height, width."""
    scales = [_LEAST + (_MOST - _LEAST) * number / (len(_MAPS) - 1) for number in range(len(_MAPS))] + [1.0]
    found: list[tuple[float, float, float, float]] = []
    for number, cells in enumerate(_MAPS):
        between = math.sqrt(scales[number] * scales[number + 1])
        shapes = _FIRST if number == 0 else (*((scales[number], ratio) for ratio in _RATIOS), (between, 1.0))
        for y in range(cells):
            for x in range(cells):
                centre = ((y + 0.5) / cells, (x + 0.5) / cells)
                found.extend((*centre, scale / math.sqrt(ratio), scale * math.sqrt(ratio)) for scale, ratio in shapes)
    return np.array(found, dtype=np.float32)


def scale_pixels(pixels: Array) -> Array:
    """The detector's input [1, 300, 300, 3] of an RGB image [300, 300, 3] of bytes."""
    return (pixels.astype(np.float32) / np.float32(127.5) - np.float32(1.0))[np.newaxis]


def decode(encodings: Array, logits: Array, *, least: float = 0.4, overlap: float = 0.5) -> list[Detection]:
    """The objects with a score of `least` or more; of boxes of one class that overlap more than that the best stays."""
    scores = 1 / (1 + np.exp(-logits.reshape(-1, len(NAMES))[:, 1:].astype(np.float64)))
    kinds = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), kinds]
    chosen = np.flatnonzero(best >= least)
    chosen = chosen[np.argsort(-best[chosen], kind="stable")]
    boxes = _boxes(encodings.reshape(-1, 4)[chosen], anchors()[chosen])
    kept: list[int] = []
    for at in range(len(chosen)):
        same = [other for other in kept if kinds[chosen[other]] == kinds[chosen[at]]]
        if not same or overlaps(boxes[at], boxes[same]).max() <= overlap:
            kept.append(at)
    return [Detection(NAMES[kinds[chosen[at]] + 1], float(best[chosen[at]]), _corners(boxes[at])) for at in kept]


def encode(box: tuple[float, float, float, float], anchor: Array) -> Array:
    """The encoding that `decode` turns into this box: its inverse, for tests and for labels."""
    top, left, bottom, right = box
    y, x, height, width = map(float, anchor)
    tall, wide = bottom - top, right - left
    parts = (
        (top + tall / 2 - y) / height,
        (left + wide / 2 - x) / width,
        math.log(tall / height),
        math.log(wide / width),
    )
    return np.array(parts, dtype=np.float32) * _VARIANCES


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one box [4] with others [n, 4]."""
    top_left, bottom_right = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.clip(bottom_right - top_left, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(common / np.maximum(areas - common, 1e-12))


def _corners(box: Array) -> tuple[float, float, float, float]:
    top, left, bottom, right = box.tolist()
    return top, left, bottom, right


def _boxes(encodings: Array, at: Array) -> Array:
    scaled = encodings / _VARIANCES
    centre = scaled[:, :2] * at[:, 2:] + at[:, :2]
    half = np.exp(scaled[:, 2:]) * at[:, 2:] / 2
    return np.asarray(np.clip(np.concatenate([centre - half, centre + half], axis=1), 0.0, 1.0))
