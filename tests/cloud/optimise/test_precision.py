"""A runtime that lowers precision without a word is caught, by what it computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud.optimise import bench, candidates, precision, runtimes, samples
from tests.cloud.optimise import models, strange


def _candidate(runtime: str, form: str = candidates.SOURCE) -> candidates.Candidate:
    return candidates.Candidate(candidates.form(form), runtime, runtimes.Settings())


@pytest.mark.parametrize(("runtime", "computes"), [("onnxruntime", "float32"), (strange.HALVED, "bfloat16")])
def test_probed_when_a_runtime_is_asked_then_what_it_computes_in(runtime: str, computes: str) -> None:
    assert precision.probed(_candidate(runtime)) == computes


@pytest.mark.parametrize(
    ("places", "name"), [(23, "float32"), (22, "float16"), (10, "float16"), (7, "bfloat16"), (3, "int8")]
)
def test_named_when_places_are_lost_then_the_precision_that_has_as_many(places: int, name: str) -> None:
    steps = 1 + 2.0 ** -np.arange(1, 65)
    kept = np.where(np.arange(1, 65) <= places, steps, 1.0)
    answer = {"passed": kept[np.newaxis, :, np.newaxis, np.newaxis], "weighed": steps[np.newaxis]}
    answer["summed"] = np.full((1, 64), 1 + 63 * 2.0**-20)

    assert precision.named(answer) == name


def test_named_when_only_sums_are_short_then_it_shows() -> None:
    steps = 1 + 2.0 ** -np.arange(1, 65)
    answer = {"passed": steps[np.newaxis, :, np.newaxis, np.newaxis], "weighed": steps[np.newaxis]}
    answer["summed"] = np.ones((1, 64))

    assert precision.named(answer) != "float32"


def test_lower_when_compared_then_integers_are_the_least() -> None:
    assert precision.lower("float32", "bfloat16") == "bfloat16"
    assert precision.is_lower("int8", "bfloat16")
    assert not precision.is_lower("float32", "float16")


def test_bench_when_a_candidate_answers_then_as_the_runtime_does_and_with_figures(tmp_path: Path) -> None:
    model, held = models.cnn(tmp_path / "a.onnx"), samples.made({"image": models.images(3)})
    direct = runtimes.OnnxRuntime().load(model, runtimes.Settings())

    with bench.Bench(held, tmp_path).start(_candidate("onnxruntime"), model) as running:
        answers, finite = running.answer(1, 3)
        took = running.time(4)

    assert finite
    assert [answer["scores"].tolist() for answer in answers] == [
        direct.run(held.one(at))["scores"].tolist() for at in (1, 2)
    ]
    assert len(took) == 4
    assert min(took) > 0
    assert running.size_bytes == model.stat().st_size
    assert running.greeting.inputs == direct.inputs
    assert running.greeting.provider == "CPUExecutionProvider"


def test_bench_when_a_weight_is_infinite_then_answers_are_not_finite(tmp_path: Path) -> None:
    model, held = models.cnn(tmp_path / "a.onnx", poison=np.inf), samples.made({"image": models.images(2)})

    with bench.Bench(held, tmp_path).start(_candidate("onnxruntime"), model) as running:
        assert not running.answer(0, 2)[1]


@pytest.mark.parametrize(
    ("runtime", "told"),
    [(strange.DYING, "its process ended with -6"), ("tests.cloud.optimise.strange:Absent", "RuntimeMissingError")],
    ids=["dies", "absent"],
)
def test_bench_when_a_runtime_fails_then_it_is_said_and_nothing_else_harmed(
    tmp_path: Path, runtime: str, told: str
) -> None:
    model, held = models.cnn(tmp_path / "a.onnx"), samples.made({"image": models.images(2)})

    with pytest.raises(bench.BenchError, match=told):
        bench.Bench(held, tmp_path).start(_candidate(runtime), model)
