"""Measures of agreement between a new and a serving model's answers (pure)."""

from __future__ import annotations

from typing import Any

import agent_agreement as agreement
import agent_detections as detections
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

floats = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32))
every = [
    agreement.read(section, "trial")
    for section in ({}, {"measure": "close"}, {"measure": "close", "tolerance": {"relative": 0.1}}, {"measure": "top1"})
]


@given(floats, st.sampled_from(every[:3]))
def test_answer_when_it_is_the_same_then_it_agrees_by_every_measure(array: Any, measure: agreement.Measure) -> None:
    assert agreement.dispute(measure, {"y": array}, {"y": array.copy()}) == ""


@given(floats.filter(lambda array: np.isfinite(array).any()), st.sampled_from(every))
def test_answer_when_a_number_became_none_then_it_never_agrees(array: Any, measure: agreement.Measure) -> None:
    new = array.copy()
    new[np.isfinite(array)] = np.nan

    assert "NaN" in agreement.dispute(measure, {"y": array}, {"y": new})


@pytest.mark.parametrize("measure", every, ids=["equal", "close", "relative", "top1"])
@pytest.mark.parametrize("new", [{}, {"y": np.zeros((2, 4))}, {"y": np.zeros(4)}], ids=["no", "other", "less"])
def test_answer_when_outputs_or_shapes_differ_then_it_does_not_agree(measure: agreement.Measure, new: Any) -> None:
    assert agreement.dispute(measure, {"y": np.zeros((2, 3))}, new).startswith("y is [2, 3]")


CASES: list[tuple[dict[str, Any], list[Any], list[Any], bool]] = [
    ({}, [1.0, 2.0], [1.0, 2.0000002], False),
    ({"measure": "close", "tolerance": 0.5}, [1.0, 2.0], [1.5, 1.5], True),
    ({"measure": "close", "tolerance": 0.5}, [1.0, 2.0], [1.6, 2.0], False),
    ({"measure": "close", "tolerance": {"absolute": 0.1, "relative": 0.1}}, [100.0], [110.0], True),
    ({"measure": "close", "tolerance": {"absolute": 0.1, "relative": 0.1}}, [100.0], [111.0], False),
    ({"measure": "top1"}, [[0.1, 0.9], [0.8, 0.2]], [[0.4, 0.6], [0.6, 0.4]], True),
    ({"measure": "top1"}, [[0.1, 0.9], [0.8, 0.2]], [[0.4, 0.6], [0.4, 0.6]], False),
    ({"measure": "top1", "tolerance": 0.05}, [[0.51, 0.49]], [[0.2, 0.8]], True),
    ({"measure": "top1", "tolerance": 0.05}, [[0.6, 0.4]], [[0.2, 0.8]], False),
    ({"measure": "top1"}, [], [], False),
]


@pytest.mark.parametrize(("section", "serving", "new", "agrees"), CASES, ids=[str(n) for n in range(len(CASES))])
def test_answers_when_compared_then_as_the_measure_says(
    section: dict[str, Any], serving: list[Any], new: list[Any], agrees: bool
) -> None:
    measure = agreement.read(section, "trial")

    found = agreement.dispute(measure, {"y": np.array(serving)}, {"y": np.array(new)})

    assert (found == "") is agrees


# ---- detections ------------------------------------------------------------------------------------------------------


def corners(*objects: tuple[int, float, tuple[float, float, float, float]]) -> dict[str, Any]:
    """An answer with these (class, score, box), coded as corners, of three classes."""
    boxes, scores = np.zeros((1, 8, 4), np.float32), np.zeros((1, 8, 3), np.float32)
    for at, (kind, score, box) in enumerate(objects):
        boxes[0, at], scores[0, at, kind] = box, score
    return {"boxes": boxes, "scores": scores}


A, B = (0.1, 0.1, 0.3, 0.3), (0.5, 0.5, 0.9, 0.9)
NEAR_A = (0.1, 0.1, 0.3, 0.32)
MATCHES = [
    ("same", corners((0, 0.9, A), (1, 0.8, B)), 1.0),
    ("near", corners((0, 0.7, NEAR_A), (1, 0.8, B)), 1.0),
    ("beside-the-threshold", corners((0, 0.45, A), (1, 0.8, B)), 1.0),
    ("lost", corners((0, 0.9, A)), 2 / 3),
    ("other-class", corners((2, 0.9, A), (1, 0.8, B)), 0.5),
    ("elsewhere", corners((0, 0.9, (0.6, 0.1, 0.8, 0.3)), (1, 0.8, B)), 0.5),
    ("one-more", corners((0, 0.9, A), (1, 0.8, B), (2, 0.9, (0.0, 0.6, 0.2, 0.9))), 0.8),
    ("seen-twice", corners((0, 0.9, A), (0, 0.85, NEAR_A), (1, 0.8, B)), 1.0),
    ("nothing", corners(), 0.0),
]


@pytest.mark.parametrize(("new", "share"), [case[1:] for case in MATCHES], ids=[case[0] for case in MATCHES])
def test_detections_when_compared_then_the_share_of_objects_that_both_see(new: Any, share: float) -> None:
    serving = corners((0, 0.9, A), (1, 0.8, B))
    rule = detections.Rule(coding="corners")

    assert detections.share(rule, serving, new) == pytest.approx(share)
    assert detections.share(rule, new, serving) == pytest.approx(share)


def test_detections_when_nobody_sees_anything_then_they_agree() -> None:
    assert detections.share(detections.Rule(coding="corners"), corners(), corners()) == 1.0


def ssd(objects: dict[int, int], offset: float = 0.0) -> dict[str, Any]:
    """An answer coded as SSD's with {anchor: class}, each box moved by `offset` of its anchor's size."""
    boxes, logits = np.zeros((1, 1917, 4), np.float32), np.full((1, 1917, 24), -6.0, np.float32)
    boxes[..., :2] = offset * 10.0
    for anchor, kind in objects.items():
        logits[0, anchor, kind] = 3.0
    return {"raw/box_encodings": boxes, "raw/class_predictions": logits}


def test_ssd_when_decoded_then_boxes_are_their_anchors_and_the_background_is_none() -> None:
    found = detections.decode(detections.Rule(), ssd({1500: 4, 900: 0}), 0.5)

    assert found.kinds.tolist() == [3]  # of the classes without the background
    y, x, height, width = detections.anchors()[1500]
    assert found.boxes[0] == pytest.approx([y - height / 2, x - width / 2, y + height / 2, x + width / 2])


def test_ssd_when_moved_a_little_then_agrees_and_when_moved_far_then_not() -> None:
    measure = agreement.read({"measure": "detections"}, "trial")
    serving = ssd({300: 4, 1500: 23})

    assert agreement.dispute(measure, serving, ssd({300: 4, 1500: 23}, 0.05)) == ""
    assert agreement.dispute(measure, serving, ssd({300: 4, 1500: 23}, 0.6)).startswith("0% of the objects")


def test_detections_when_outputs_are_no_detectors_then_it_says_so() -> None:
    measure = agreement.read({"measure": "detections"}, "trial")

    assert "name them" in agreement.dispute(measure, {"y": np.zeros(3)}, {"y": np.zeros(3)})
    found = agreement.dispute(measure, corners((0, 0.9, A)), corners((0, 0.9, A)))
    assert "8 anchors, those of SSD are 1917" in found


def test_anchors_when_made_then_as_many_as_the_detector_has() -> None:
    assert detections.anchors().shape == (1917, 4)
