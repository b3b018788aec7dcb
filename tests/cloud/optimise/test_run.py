"""From a request to a component that the model agent's own checks accept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.optimise import bench, candidates, components, forms, gate, reports, run, scores, search, targets
from nucleus.core import recipe
from tests.cloud.optimise import agent, labs, models, strange

LEVELS = {"all": 1.0, "extended": 1.3, "basic": 1.4, "disabled": 2.0}
QUICK = search.Plan(rounds=2, runs=2, final_rounds=2)


def _request(folder: Path, **more: Any) -> run.Request:
    request = run.Request(
        model=models.cnn(folder / "cnn.onnx"),
        calibration=models.save_images(folder / "calibration.npz", 80, seed=1),
        evaluation=None,
        held_out=0.75,
        target=targets.Target("here", targets.here()),
        metric=scores.Metric("top1"),
        bounds=gate.Bounds(0.2, 0.5),
        component=components.Component("com.example.Cells", "1.0.0", "cells"),
        out=folder / "out",
        plan=QUICK,
        forms=("fp16", "INT8 per-channel U8S8 narrow"),
    )
    return msgspec.structs.replace(request, **more)


def _lab(static_ms: float) -> Callable[[forms.Maker, bench.Bench], search.Lab]:
    """Real models and answers; INT8 takes `static_ms`, all others 10 ms and more."""

    def cost(one: candidates.Candidate) -> float:
        return (static_ms if one.form.kind == "static" else 10.0) * LEVELS[one.settings.level]

    return lambda maker, tester: labs.Timetable(maker, tester, cost)


def test_optimise_when_int8_wins_then_the_agent_accepts_the_component_and_its_certificate(tmp_path: Path) -> None:
    result = run.optimise(_request(tmp_path), opened=_lab(4.0))

    assert result.artifacts is not None
    assert result.recipe is not None
    assert result.best.kind == "static"
    assert result.figures.source.latency_ms / result.best.latency_ms == pytest.approx(2.5)
    model = (result.artifacts / "model.onnx").read_bytes()
    check, reader = agent.module("agent_check"), agent.module("agent_certificate")
    manifest = check.read_manifest((result.artifacts / "model.json").read_bytes())
    assert check.load(manifest, model).manifest.name == "cells"
    certificate = reader.read((result.artifacts / "certificate.json").read_bytes())
    reader.judge(certificate, manifest.sha256, "onnxruntime", result.best.runtime_version, reader.target())
    assert certificate.evaluation_samples == 60
    read = recipe.read(result.recipe.read_bytes(), str(result.recipe))
    assert recipe.choose(read, {"os": "linux", "architecture": targets.here()}) is not None
    report = msgspec.json.decode(result.report.read_bytes(), type=reports.Report)
    assert report.figures == result.figures
    assert report.digests["evaluation"] == certificate.evaluation


def test_optimise_when_another_target_is_asked_for_then_another_manifest_and_the_layers_do_not_depend_on_evaluation(
    tmp_path: Path,
) -> None:
    here, results = targets.here(), []
    for at, board in enumerate(("4", "5")):
        models.save_images(tmp_path / "evaluation.npz", 40, seed=20 + at)
        request = _request(
            tmp_path,
            target=targets.Target(f"board-{board}", here, platform={"board": board}),
            evaluation=tmp_path / "evaluation.npz",
            forms=("INT8 per-channel U8S8 narrow",),
        )
        results.append(run.optimise(request, opened=_lab(4.0)))

    first, second = results
    assert first.recipe is not None
    assert first.recipe == second.recipe
    read = recipe.read(first.recipe.read_bytes(), str(first.recipe))
    for board, result in zip(("4", "5"), results, strict=True):
        chosen = recipe.choose(read, {"os": "linux", "architecture": here, "board": board})
        assert chosen is not None
        assert result.artifacts is not None
        assert {artifact.uri.split("/")[-2] for artifact in chosen.artifacts} == {result.artifacts.name}
    made = [result.artifacts / "model.onnx" for result in results if result.artifacts is not None]
    assert made[0].read_bytes() == made[1].read_bytes()
    certificates = [json.loads((path.parent / "certificate.json").read_text()) for path in made]
    assert certificates[0]["data"]["calibrationSha256"] == certificates[1]["data"]["calibrationSha256"]
    assert certificates[0]["data"]["evaluationSha256"] != certificates[1]["data"]["evaluationSha256"]


def test_optimise_when_a_form_was_narrowed_then_the_report_tells_which_nodes_and_why(tmp_path: Path) -> None:
    request = _request(tmp_path, forms=("INT8 per-channel U8S8 narrow",))

    result = run.optimise(request, opened=_lab(4.0))

    told = json.loads(result.report.read_text())["saturation"]["INT8 per-channel U8S8"]
    assert [each["node"] for each in told] == ["Conv_0", "Conv_2", "MatMul_6"]
    assert {each["saturates"] for each in told} == {True, False}
    for each in told:
        assert each["why"].endswith("7 bits" if each["saturates"] else "8 bits")


def test_optimise_when_the_source_wins_then_a_report_and_no_component(tmp_path: Path) -> None:
    result = run.optimise(_request(tmp_path), opened=_lab(11.0))

    assert (result.recipe, result.artifacts) == (None, None)
    assert result.best == result.figures.source
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.png"]
    assert json.loads(result.report.read_text())["figures"]["best"] == ""


def test_optimise_when_a_runtime_lowers_precision_then_it_is_refused_in_the_report(tmp_path: Path) -> None:
    request = _request(tmp_path, runtimes=(strange.HALVED,), metric=scores.Metric("close", 10.0, 0.0), forms=("fp16",))

    result = run.optimise(request)

    halved = result.figures.named("source · Halved")
    assert halved.accuracy is not None
    assert halved.accuracy.candidate == 1.0  # it would pass by its answers: only the probe shows it
    assert [one.code for one in halved.reasons][:1] == ["PRECISION_LOWERED"]
    assert (halved.precision, halved.effective) == ("float32", "bfloat16")
    assert result.figures.source.effective == "float32"


def test_optimise_when_the_model_cannot_be_loaded_then_it_is_said(tmp_path: Path) -> None:
    request = _request(tmp_path)
    request.model.write_bytes(b"no model")

    with pytest.raises(run.OptimiseError, match=r"cannot load .*cnn\.onnx"):
        run.optimise(request)
