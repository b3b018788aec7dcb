from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cloud.optimise import candidates, forms, graphs, runtimes, samples
from tests.cloud.optimise import agent, models

CALIBRATION = samples.made({"image": models.images(6)})


def _maker(folder: Path, source: Path | None = None) -> forms.Maker:
    return forms.Maker(source or models.cnn(folder / "source.onnx"), CALIBRATION, folder)


@pytest.mark.parametrize("name", [form.name for form in candidates.FORMS])
def test_file_when_a_form_is_made_then_it_runs_and_keeps_names_and_shapes(tmp_path: Path, name: str) -> None:
    maker, runtime = _maker(tmp_path), runtimes.OnnxRuntime()
    source = runtime.load(tmp_path / "source.onnx", runtimes.Settings())

    made = maker.file(candidates.form(name))
    session = runtime.load(made, runtimes.Settings())

    if made.suffix == ".onnx":
        agent.module("agent_onnx").check(made.read_bytes())  # raises what the model agent refuses
    assert (session.inputs, session.outputs) == (source.inputs, source.outputs)
    given = CALIBRATION.one(0)
    assert session.run(given)["scores"] == pytest.approx(source.run(given)["scores"], abs=0.3)


@pytest.mark.parametrize("name", [form.name for form in candidates.FORMS if form.kind not in ("source", "ort")])
def test_file_when_made_then_it_declares_no_operators_that_devices_refuse(tmp_path: Path, name: str) -> None:
    made = onnx.load(_maker(tmp_path).file(candidates.form(name)))

    assert {each.domain for each in made.opset_import} <= {"", "com.microsoft"}


def test_file_when_made_again_then_the_same_bytes(tmp_path: Path) -> None:
    form = candidates.form("INT8 per-channel U8S8 narrow")
    source = models.cnn(tmp_path / "source.onnx")
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append(forms.Maker(source, CALIBRATION, tmp_path / name).file(form).read_bytes())

    assert made[0] == made[1]


def test_file_when_another_process_makes_it_then_every_form_that_may_win_has_the_same_bytes(tmp_path: Path) -> None:
    models.cnn(tmp_path / "source.onnx")
    told = []
    for seed in ("1", "2"):  # of the order of Python's sets
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.cloud.optimise.made", tmp_path / "source.onnx", folder],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(dict(line.split(": ") for line in done.stdout.splitlines()))

    assert set(told[0]) == {form.name for form in candidates.FORMS if form.kind != "ort"}
    assert len(set(told[0].values())) > 6
    assert told[0] == told[1]


def test_file_when_the_model_cannot_be_changed_then_the_reason_stays(tmp_path: Path) -> None:
    broken = tmp_path / "source.onnx"
    broken.write_bytes(b"no model")
    maker = _maker(tmp_path, broken)

    for _ in range(2):
        with pytest.raises(forms.FormError, match="static form cannot be made"):
            maker.file(candidates.form("INT8 per-tensor U8S8"))


def _weights(path: Path, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    found = [numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
    return next(each for each in found if each.dtype == np.int8 and each.shape == shape)


def test_narrow_when_products_are_summed_in_pairs_then_seven_bits_and_depthwise_keeps_eight(tmp_path: Path) -> None:
    maker = _maker(tmp_path)
    narrow, full = (maker.file(candidates.form(f"INT8 per-channel U8S8{end}")) for end in (" narrow", ""))

    assert np.abs(_weights(full, (8, 3, 3, 3)).astype(int)).max() == 127
    assert np.abs(_weights(narrow, (8, 3, 3, 3)).astype(int)).max() in (63, 64)
    assert np.abs(_weights(narrow, (8, 1, 3, 3)).astype(int)).max() == 127


def test_float_ends_when_asked_for_then_the_last_layer_is_as_it_was(tmp_path: Path) -> None:
    made = _maker(tmp_path).file(candidates.form("INT8 per-channel U8S8 narrow, float ends"))

    shapes = {
        tuple(each.dims) for each in onnx.load(made).graph.initializer if each.data_type == onnx.TensorProto.FLOAT
    }

    assert (8, models.CLASSES) in shapes
    assert (8, 3, 3, 3) not in shapes


def test_ends_when_only_shapes_follow_then_that_node_and_no_other(tmp_path: Path) -> None:
    graph = onnx.load(models.cnn(tmp_path / "a.onnx")).graph
    graphs.give_names(graph)

    assert graphs.ends(graph) == ["MatMul_6"]


def test_listed_when_a_target_has_threads_then_each_number_is_tried_and_the_source_is_first() -> None:
    from cloud.optimise import targets

    one = candidates.listed(targets.Target("a", threads=1))
    two = candidates.listed(targets.Target("a", threads=2), ("openvino",))

    assert one[0] == candidates.source(one)
    assert len({each.name for each in two}) == len(two)
    assert {each.settings.threads for each in two} == {1, 2}
    assert {each.precision for each in two if each.settings.hint == "bf16"} == {"bfloat16"}
