"""What a winner is written as: recipe, golden samples and certificate, read by those who will judge them on a device."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cloud.optimise import (
    certificates,
    components,
    gate,
    golden,
    outcomes,
    picture,
    reports,
    runtimes,
    samples,
    saturation,
    targets,
)
from nucleus.core import recipe
from tests.cloud.optimise import agent, models

COMPONENT = components.Component("com.example.Model", "1.2.0", "cells")
TARGET = targets.Target("pi-4", "aarch64")
SETTINGS = runtimes.Settings(level="extended", threads=2)
FILES = {"model.onnx": b"model", "model.json": b"{}", "certificate.json": b"{}"}
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
DIGESTS = {name: name[0].encode().hex() * 32 for name in ("model", "source", "calibration", "evaluation")}


def _outcome(name: str, state: str, value: float, ms: float, *reasons: gate.Reason) -> outcomes.Outcome:
    accuracy = gate.Accuracy(132, 1.0, value, value - 1.005, value - 0.99, 0.95, "bootstrap", 4, 0.02, ())
    return outcomes.Outcome(
        name=name,
        form=name,
        kind="source" if name == "source" else "static",
        runtime="onnxruntime",
        settings=runtimes.Settings(),
        state=state,
        precision="int8",
        effective="int8",
        runtime_version="1.32.0",
        provider="CPUExecutionProvider",
        reasons=reasons,
        size_bytes=5_350_000,
        memory_bytes=30_000_000,
        ratio=ms / 19,
        latency_ms=ms,
        p99_ms=ms + 1,
        runs=60,
        accuracy=accuracy,
    )


SOURCE = _outcome("source", outcomes.SOURCE, 1.0, 19.0)
BEST = _outcome("INT8", outcomes.ACCEPTED, 0.98, 12.0)
WORST = _outcome("INT8 per-tensor", outcomes.REFUSED, 0.9, 12.1, gate.Reason("MARGIN", "too much"))
FIGURES = outcomes.Figures((SOURCE, BEST, WORST), "INT8", "source", "detections F1", False, 3, 9.0)
BOUNDS = gate.Bounds(0.03, 0.1)


def test_write_when_a_second_target_comes_then_one_recipe_with_a_manifest_for_each(tmp_path: Path) -> None:
    components.write(tmp_path, COMPONENT, TARGET, FILES)
    other = targets.Target("pc", "amd64")
    path, folder = components.write(tmp_path, COMPONENT, other, FILES)

    read = recipe.read(path.read_bytes(), str(path))
    for architecture, place in (("aarch64", "pi-4"), ("amd64", "pc")):
        chosen = recipe.choose(read, {"os": "linux", "architecture": architecture})
        assert chosen is not None
        assert {artifact.uri.split("/")[-2] for artifact in chosen.artifacts} == {place}
        assert "hand_over.py offer" in json.dumps(chosen.lifecycle)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES


def test_write_when_a_target_comes_again_then_its_manifest_and_signature_are_replaced(tmp_path: Path) -> None:
    _, folder = components.write(tmp_path, COMPONENT, TARGET, FILES)
    (folder / "marram.manifest.sig").write_text("of the old files")
    path, _ = components.write(tmp_path, COMPONENT, TARGET, FILES)

    assert len(recipe.read(path.read_bytes(), str(path)).manifests) == 1
    assert not (folder / "marram.manifest.sig").exists()


def test_write_when_a_device_could_not_choose_then_refused_unless_the_platform_tells(tmp_path: Path) -> None:
    path, _ = components.write(tmp_path, COMPONENT, TARGET, FILES)

    with pytest.raises(components.ComponentError, match="a device could not choose"):
        components.write(tmp_path, COMPONENT, targets.Target("pi-5", "aarch64"), FILES)

    components.write(tmp_path, COMPONENT, targets.Target("pi-5", "aarch64", platform={"board": "5"}), FILES)
    read = recipe.read(path.read_bytes(), str(path))
    names = [
        chosen.name
        for board in ("4", "5")
        if (chosen := recipe.choose(read, {"os": "linux", "architecture": "aarch64", "board": board}))
    ]
    assert names == ["pi-4", "pi-5"]


@pytest.mark.parametrize("size", [16, 200], ids=["lists", "packed"])
def test_golden_when_the_agent_checks_them_then_the_model_passes_and_a_damaged_one_does_not(
    tmp_path: Path, size: int
) -> None:
    model = models.cnn(tmp_path / "a.onnx", size=size)
    session = runtimes.OnnxRuntime().load(model, runtimes.Settings())
    held = samples.made({"image": models.images(12, size=size)})
    check = agent.module("agent_check")

    described = golden.describe(
        "cells",
        "1.0.0",
        "model.onnx",
        model.read_bytes(),
        session,
        ("onnxruntime", "1.18.0"),
        SETTINGS,
        golden.take(held, session),
    )

    assert len(described) < 1024 * 1024
    loaded = check.load(check.read_manifest(described), model.read_bytes())
    assert len(loaded.manifest.golden) >= 2
    assert (loaded.manifest.session.threads, loaded.manifest.session.level) == (2, "extended")
    damaged = models.cnn(tmp_path / "b.onnx", poison=30.0, size=size).read_bytes()
    other = json.loads(described) | {"sha256": hashlib.sha256(damaged).hexdigest()}
    with pytest.raises(check.RefusedError, match="golden sample"):
        check.load(check.read_manifest(json.dumps(other).encode()), damaged)


def test_tolerance_when_the_model_is_not_the_source_then_wide_enough_for_it(tmp_path: Path) -> None:
    source, near = (
        runtimes.OnnxRuntime().load(models.cnn(tmp_path / f"{poison}.onnx", poison=poison), runtimes.Settings())
        for poison in (1.0, 1.1)
    )
    taken = golden.take(samples.made({"image": models.images(4)}), source)

    own, other = (golden.tolerance(taken, session)["absolute"] for session in (source, near))

    far = max(float(np.abs(near.run(one.inputs)["scores"] - one.outputs["scores"]).max()) for one in taken)
    assert own < far < other < 2 * far


def test_certificate_when_the_agent_reads_it_then_it_counts_here() -> None:
    reader = agent.module("agent_certificate")

    found = reader.read(certificates.write(BEST, FIGURES, BOUNDS, DIGESTS, NOW))

    assert certificates.FEATURES == reader.FEATURES
    assert (found.candidate, found.margin, found.precision) == (0.98, 0.03, "int8")
    reader.judge(found, DIGESTS["model"], "onnxruntime", "1.32.0", reader.target())
    with pytest.raises(reader.CertificateError):
        reader.judge(found, DIGESTS["source"], "onnxruntime", "1.32.0", reader.target())


def test_report_when_written_then_the_same_figures_come_back() -> None:
    layers = {"INT8": (saturation.Layer("Conv_1", "Conv", True, 3, 40_000, "3 of 448 pairs: 7 bits"),)}
    data = reports.write(FIGURES, TARGET, BOUNDS, DIGESTS, layers)

    import msgspec

    read = msgspec.json.decode(data, type=reports.Report)
    assert read.figures == FIGURES
    assert read.saturation == layers
    assert read.verdict.startswith("Optimised: INT8, 1.58 times as fast")
    assert json.loads(data)["figures"]["outcomes"][2]["reasons"] == [{"code": "MARGIN", "text": "too much"}]


def test_picture_when_drawn_then_accepted_refused_and_source_have_their_colours() -> None:
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(picture.draw(FIGURES, TARGET, BOUNDS, "model.onnx")))

    assert image.size == (picture.WIDTH, picture.HEIGHT)
    colours = {colour for _, colour in image.getcolors(1 << 24) or []}
    for state in (outcomes.SOURCE, outcomes.ACCEPTED, outcomes.REFUSED):
        assert picture.COLOURS[state] in colours


@pytest.mark.parametrize("times", [(5.0, 5.0, 5.0), (0.01, 5.0, 900.0)], ids=["equal", "far-apart"])
def test_picture_when_latencies_are_equal_or_far_apart_then_it_is_drawn_all_the_same(times: tuple[float, ...]) -> None:
    import msgspec

    spread = tuple(msgspec.structs.replace(one, latency_ms=ms) for one, ms in zip(FIGURES.outcomes, times, strict=True))

    data = picture.draw(msgspec.structs.replace(FIGURES, outcomes=spread), TARGET, BOUNDS, "model.onnx")

    assert data.startswith(b"\x89PNG")
