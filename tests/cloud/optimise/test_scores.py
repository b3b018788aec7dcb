from __future__ import annotations

import numpy as np
import pytest

from cloud.optimise import runtimes, samples, scores

OUTPUTS = (runtimes.Tensor("scores", "float32", (1, 3)),)


def _answers(*rows: list[float]) -> list[dict[str, scores.Array]]:
    return [{"scores": np.array([row], np.float32)} for row in rows]


def _held(count: int, **company: scores.Array) -> samples.Samples:
    return samples.made({"x": np.zeros((count, 1), np.float32)}, company)


def test_top1_when_answers_agree_with_the_source_then_all_right() -> None:
    source = _answers([1, 0, 0], [0, 1, 0])

    scorer = scores.Scorer(scores.Metric("top1"), OUTPUTS, _held(2), source)

    assert scorer.against == "source"
    assert scores.value(scorer.count(source).sum(axis=0)) == 1


def test_top1_when_there_are_labels_then_they_count_and_not_the_source() -> None:
    source = _answers([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1])
    scorer = scores.Scorer(scores.Metric("top1"), OUTPUTS, _held(4, labels=np.array([0, 1, 2, 0])), source)

    counts = scorer.count(source)

    assert scorer.against == "labels"
    assert scores.value(counts.sum(axis=0)) == 0.75
    recalls, wanted = scores.recalls(counts)
    assert recalls.tolist() == [0.5, 1, 1]
    assert wanted.tolist() == [2, 1, 1]


def test_count_when_it_begins_later_then_with_the_samples_there() -> None:
    source = _answers([1, 0, 0], [0, 1, 0])
    scorer = scores.Scorer(scores.Metric("top1"), OUTPUTS, _held(2), source)

    assert scorer.count(source[1:], begin=1)[0, 1].tolist() == [1, 0, 0]


def test_close_when_one_number_is_too_far_then_the_sample_is_not() -> None:
    source = _answers([1, 2, 100], [1, 2, 100])
    scorer = scores.Scorer(scores.Metric("close", 0.1, 0.01), OUTPUTS, _held(2), source)

    counts = scorer.count(_answers([1.05, 2, 101], [1, 2, 101.2]))

    assert scores.value(counts.sum(axis=0)) == 0.5


@pytest.mark.parametrize(
    ("metric", "told"),
    [(scores.Metric("close"), "--tolerance"), (scores.Metric("detections"), "a detector answers")],
    ids=["close", "detections"],
)
def test_scorer_when_the_metric_does_not_fit_then_it_is_said(metric: scores.Metric, told: str) -> None:
    with pytest.raises(scores.ScoreError, match=told):
        scores.Scorer(metric, OUTPUTS, _held(1), _answers([1, 0, 0]))


def test_detections_when_there_are_labels_then_the_source_is_not_perfect() -> None:
    held = _held(
        2,
        anchors=np.array([[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]]),
        boxes=np.array([[[0.15, 0.15, 0.35, 0.35]], [[0, 0, 0, 0]]]),
        classes=np.array([[1], [-1]]),
    )
    outputs = (runtimes.Tensor("b", "float32", (1, 2, 4)), runtimes.Tensor("c", "float32", (1, 2, 3)))
    codes = np.zeros((1, 2, 4), np.float32)
    sees_first = np.array([[[0, 5, -9], [0, -9, -9]]], np.float32)
    source = [{"b": codes, "c": sees_first}, {"b": codes, "c": sees_first}]

    counts = scores.Scorer(scores.Metric("detections"), outputs, held, source).count(source)

    assert counts[0, 1].tolist() == [1, 0, 0]
    assert counts[1, 1].tolist() == [0, 1, 0]
