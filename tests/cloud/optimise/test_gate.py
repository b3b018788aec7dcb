from __future__ import annotations

import msgspec
import numpy as np
import pytest

from cloud.optimise import gate, runtimes, targets

ACCURACY = gate.Accuracy(
    samples=100,
    source=1.0,
    candidate=0.98,
    low=-0.025,
    high=-0.01,
    confidence=0.95,
    method="",
    worst_class=4,
    worst_class_drop=0.05,
    unjudged_classes=(),
)
BOUNDS = gate.Bounds(margin=0.03, class_margin=0.1)


def _accuracy(**values: object) -> gate.Accuracy:
    return msgspec.structs.replace(ACCURACY, **values)


@pytest.mark.parametrize(
    ("accuracy", "bounds", "codes"),
    [
        (ACCURACY, BOUNDS, []),
        (_accuracy(low=-0.03), BOUNDS, ["MARGIN"]),
        (_accuracy(low=-0.031), BOUNDS, ["MARGIN"]),
        (_accuracy(worst_class_drop=0.11), BOUNDS, ["CLASS_RECALL"]),
        (_accuracy(low=-0.5, worst_class_drop=0.9), BOUNDS, ["MARGIN", "CLASS_RECALL"]),
        (_accuracy(low=0.0), gate.Bounds(0.0, 0.0), ["CLASS_RECALL"]),
        (_accuracy(low=0.0, worst_class_drop=0.0), gate.Bounds(0.0, 0.0), []),
        (_accuracy(low=-1e-9, worst_class_drop=0.0), gate.Bounds(0.0, 0.0), ["MARGIN"]),
    ],
    ids=["good", "at-margin", "below", "class", "both", "zero-class", "zero-equal", "zero-less"],
)
def test_accuracy_when_judged_then_by_its_lower_end_and_its_worst_class(
    accuracy: gate.Accuracy, bounds: gate.Bounds, codes: list[str]
) -> None:
    assert [one.code for one in gate.of_accuracy(accuracy, bounds)] == codes


def test_compare_when_a_class_is_rare_then_it_is_told_and_not_judged() -> None:
    source = np.zeros((100, 3, 3))
    source[:, 1, 0] = 1
    source[:5, 2, 0] = 1
    candidate = source.copy()
    candidate[:5, 2] = (0, 0, 1)

    found = gate.compare(candidate, source, block=0)

    assert found.unjudged_classes == (2,)
    assert (found.worst_class, found.worst_class_drop) == (1, 0)


def test_compare_when_all_classes_are_rare_then_they_are_judged_all_the_same() -> None:
    source = np.zeros((5, 2, 3))
    source[:, 1, 0] = 1
    candidate = source.copy()
    candidate[0, 1] = (0, 0, 1)

    assert gate.compare(candidate, source, block=0).worst_class_drop == pytest.approx(0.2)


def test_schema_when_a_name_or_shape_differs_then_refused() -> None:
    one = runtimes.Tensor("image", "float32", (1, 3))
    source = ([one], [runtimes.Tensor("a", "float32", (1,)), runtimes.Tensor("b", "float32", (1,))])

    assert gate.of_schema(source, ([one], source[1][::-1])) == ()
    assert gate.of_schema(source, ([runtimes.Tensor("image", "float16", (1, 3))], source[1]))[0].code == "SCHEMA"
    assert gate.of_schema(source, ([one], source[1][:1]))[0].code == "SCHEMA"


@pytest.mark.parametrize(
    ("claimed", "effective", "deviation", "codes"),
    [
        ("float32", "float32", 1e-6, []),
        ("float32", "bfloat16", 1e-6, ["PRECISION_LOWERED"]),
        ("float32", "float32", 1e-2, ["PRECISION_LOWERED"]),
        ("bfloat16", "bfloat16", 1e-2, []),
        ("int8", "int8", 0.3, []),
    ],
)
def test_precision_when_it_is_less_than_said_then_refused(
    claimed: str, effective: str, deviation: float, codes: list[str]
) -> None:
    assert [one.code for one in gate.of_precision(claimed, effective, deviation)] == codes


def test_target_when_its_limits_are_passed_then_each_is_named() -> None:
    target = targets.Target("board", memory_bytes=100, latency_ms=5)

    assert gate.of_target(target, "onnxruntime", "static", 100, 5.0) == ()
    codes = [one.code for one in gate.of_target(target, "openvino", "ort", 101, 5.1)]
    assert codes == ["RUNTIME", "FORMAT", "MEMORY", "LATENCY"]
    assert set(codes) <= gate.CODES.keys()
