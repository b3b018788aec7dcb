from __future__ import annotations

import numpy as np
import pytest

from cloud.optimise import detections

ANCHORS = np.array([[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.4], [0.26, 0.26, 0.2, 0.2]])


def _outputs(logits: list[list[float]], codes: list[list[float]] | None = None) -> dict[str, detections.Array]:
    given = codes if codes is not None else [[0.0] * 4] * len(logits)
    return {"boxes": np.array([given], np.float32), "classes": np.array([logits], np.float32)}


def test_ssd_anchors_when_made_then_as_the_object_detection_api_has_them() -> None:
    found = detections.ssd_anchors()

    assert found.shape == (detections.SSD_ANCHORS, 4)
    # First cell of the first map: scale 0.1 square, then scale 0.2 with ratio 2 (wide) and ratio 1/2 (high).
    centre = 0.5 / 19
    assert found[:3] == pytest.approx(
        np.array(
            [
                [centre, centre, 0.1, 0.1],
                [centre, centre, 0.2 / 2**0.5, 0.2 * 2**0.5],
                [centre, centre, 0.2 * 2**0.5, 0.2 / 2**0.5],
            ]
        )
    )
    # Last map: one cell in the middle of the picture; its last anchor lies between scales 0.95 and 1.
    assert found[-1] == pytest.approx(np.array([0.5, 0.5, 0.95**0.5, 0.95**0.5]))


def test_decode_when_codes_are_zero_then_the_anchor_itself_with_its_score() -> None:
    found = detections.decode(_outputs([[9.0, -9, 2], [9, -9, -9], [9, -9, -9]]), ANCHORS)

    assert found.boxes == pytest.approx(np.array([[0.15, 0.15, 0.35, 0.35]]))
    assert found.classes.tolist() == [2]
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2))])


def test_decode_when_codes_shift_and_grow_then_by_variances() -> None:
    codes = [[1.0, -1.0, 5 * np.log(2), 0.0], [0.0] * 4, [0.0] * 4]

    found = detections.decode(_outputs([[0, 3.0], [0, -9], [0, -9]], codes), ANCHORS)

    # A tenth of the anchor's height down, a tenth of its width left, twice as high.
    assert found.boxes == pytest.approx(np.array([[0.07, 0.13, 0.47, 0.33]]))


def test_decode_when_two_boxes_of_a_class_overlap_then_the_better_stays() -> None:
    same = detections.decode(_outputs([[0, 1.0, -9], [0, -9, -9], [0, 2.0, -9]]), ANCHORS)
    other = detections.decode(_outputs([[0, 1.0, -9], [0, -9, -9], [0, -9, 2.0]]), ANCHORS)

    assert same.boxes == pytest.approx(np.array([[0.16, 0.16, 0.36, 0.36]]))
    assert sorted(other.classes.tolist()) == [1, 2]


def test_matched_when_boxes_are_counted_then_each_is_matched_once() -> None:
    one = np.array([[0, 0, 0.5, 0.5], [0.01, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    found = detections.Boxes(one, np.array([1, 1, 2]), np.ones(3))
    wanted = detections.Boxes(one[[0, 2]], np.array([1, 1]), np.ones(2))

    counts = detections.matched(found, wanted, classes=2)

    assert counts.tolist() == [[0, 0, 0], [1, 1, 1], [0, 1, 0]]


def test_matched_when_there_is_nothing_then_nothing_is_counted() -> None:
    nothing = detections.Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))

    assert not detections.matched(nothing, nothing, classes=3).any()


@pytest.mark.parametrize(
    ("shapes", "company", "told"),
    [
        ({"scores": (1, 10)}, {}, "a detector answers"),
        ({"b": (1, 9, 4), "c": (1, 9, 3)}, {}, "not known"),
        ({"b": (1, 9, 4), "c": (1, 9, 3)}, {"anchors": np.zeros((8, 4))}, r"wants \[9, 4\]"),
    ],
    ids=["no-detector", "unknown-anchors", "wrong-anchors"],
)
def test_anchors_when_they_cannot_be_known_then_it_is_said(shapes: object, company: object, told: str) -> None:
    with pytest.raises(detections.DetectionsError, match=told):
        detections.anchors_for(shapes, company)  # type: ignore[arg-type]
