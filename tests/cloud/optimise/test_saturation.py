"""Which layers saturate is found from model and calibration samples, and is what a real runtime does on this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from cloud.optimise import candidates, certificates, forms, runtimes, samples, saturation
from tests.cloud.optimise import layers, models

WIDE, NARROW = "INT8 per-channel U8S8", "INT8 per-channel U8S8 narrow"
STEPS = 1.6  # of the output's scale: rounding alone is at most one and a half steps away


def _sums_in_16_bits() -> bool:
    """Whether this CPU's kernels add pairs of 8-bit products in 16 bits: AVX2 without VNNI."""
    features = set(certificates.machine()[1])
    return "avx2" in features and not features & {"avx512_vnni", "avx_vnni", "amx_int8"}


def _far(made: Path, source: runtimes.Session, given: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """How many steps of its scale the quantised model's answers are away at most."""
    session = runtimes.OnnxRuntime().load(made, runtimes.Settings())
    wanted = np.stack([source.run({"x": one})["y"] for one in given])
    found = np.stack([session.run({"x": one})["y"] for one in given])
    step = max(float(max(0, wanted.max()) - min(0, wanted.min())) / 255, 1e-9)
    return float(np.abs(found - wanted).max()) / step


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", layers.KINDS)
def test_layers_when_a_real_runtime_multiplies_then_it_saturates_where_they_say_and_never_when_narrow(
    tmp_path: Path, kind: str, seed: int
) -> None:
    given = layers.save(tmp_path / "source.onnx", kind, seed)
    maker = forms.Maker(tmp_path / "source.onnx", samples.made({"x": given}), tmp_path)
    source = runtimes.OnnxRuntime().load(tmp_path / "source.onnx", runtimes.Settings())

    narrow, wide = (maker.file(candidates.form(name)) for name in (NARROW, WIDE))
    (found,) = maker.layers[WIDE]

    assert (_far(wide, source, given) > STEPS) == (found.saturates and _sums_in_16_bits())
    assert _far(narrow, source, given) < STEPS


def test_layers_when_random_ones_are_drawn_then_some_saturate_and_some_do_not(tmp_path: Path) -> None:
    said = set()
    for seed in range(6):
        given = layers.save(tmp_path / f"{seed}.onnx", "Conv", seed)
        (tmp_path / str(seed)).mkdir()
        maker = forms.Maker(tmp_path / f"{seed}.onnx", samples.made({"x": given}), tmp_path / str(seed))
        maker.file(candidates.form(NARROW))
        said.add(maker.layers[WIDE][0].saturates)

    assert said == {True, False}


def _verdict(rows: list[list[int]], largest: list[int]) -> saturation.Layer:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="one")
    weights = saturation.Weights(node, "x", 1.0, 0, 0, np.array([rows], np.int8))
    return saturation.verdict(weights, np.array([largest], np.float32))


def test_verdict_when_neighbours_are_large_then_the_sum_and_the_pairs_are_told() -> None:
    found = _verdict([[127, 127, 1, 1], [1, 1, 1, 1]], [200, 100, 0, 0])

    assert (found.saturates, found.pairs, found.largest) == (True, 1, 127 * 300)
    assert "1 of 4 pairs" in found.why
    assert "38,100: 7 bits" in found.why


@pytest.mark.parametrize(
    ("rows", "largest"),
    [
        ([[127, 127]], [255, 3]),  # only one is large
        ([[127, -127]], [255, 255]),  # of two signs
        ([[1, 127, 127, 1]], [0, 255, 255, 0]),  # neighbours, but of two pairs
        ([[64, 64]], [255, 255]),  # 7 bits
        ([[127]], [255]),  # one product alone fits
        ([[127, 127]], [-9, 400]),  # clipped to 0 and 255
    ],
    ids=["one", "signs", "pairs", "narrow", "single", "clipped"],
)
def test_verdict_when_no_sum_is_beyond_16_bits_then_8_bits_stay(rows: list[list[int]], largest: list[int]) -> None:
    found = _verdict(rows, largest)

    assert (found.saturates, found.pairs) == (False, 0)
    assert found.largest <= saturation.MOST
    assert found.why.endswith("8 bits")


def test_verdict_when_both_weights_are_negative_then_the_sum_below_zero_counts_too() -> None:
    assert _verdict([[-127, -127]], [255, 255]).largest == 64_770


def test_verdict_when_the_largest_sum_just_fits_then_it_does_not_saturate() -> None:
    assert not _verdict([[127, 2]], [255, 191]).saturates  # 32,767
    assert _verdict([[127, 2]], [255, 192]).saturates  # 32,769


def test_met_when_a_gemm_turns_its_input_then_the_largest_of_each_of_its_rows() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)
    weights = saturation.Weights(node, "x", 1.0, 0, 0, np.zeros((1, 3, 2), np.int8))

    assert saturation.met(weights, np.array([[1, 2], [9, 3]], np.float32)).tolist() == [[2, 9]]


@pytest.mark.parametrize(
    ("more", "largest"),
    [
        ({}, [[-1, -1, -1, -1]]),
        ({"pads": [1, 0, 0, 0]}, [[0, 0, -1, -1]]),
        ({"auto_pad": "SAME_UPPER"}, [[-1, 0, 0, 0]]),
    ],
    ids=["none", "above", "same-upper"],
)
def test_met_when_a_convolution_pads_then_its_zeros_count_where_they_are_met(
    more: dict[str, Any], largest: list[list[int]]
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], **more)
    weights = saturation.Weights(node, "x", 1.0, 0, 0, np.zeros((1, 1, 4), np.int8), (2, 2))

    assert saturation.met(weights, np.full((1, 1, 3, 3), -1, np.float32)).tolist() == largest


def test_layers_when_large_ones_never_came_together_then_they_are_taken_together_all_the_same() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="one")
    weights = saturation.Weights(node, "x", 1.0, 0, 0, np.array([[[127, 127]]], np.int8))
    calls = [{"x": np.array([each], np.float32)} for each in ([200, 0], [0, 150])]

    (found,) = saturation.layers([weights], calls)

    assert found.largest == 127 * 350


def test_file_when_narrow_then_exactly_the_layers_that_saturate_have_seven_bits(tmp_path: Path) -> None:
    maker = forms.Maker(models.cnn(tmp_path / "cnn.onnx"), samples.made({"image": models.images(6)}), tmp_path)

    found = saturation.read(
        onnx.load(maker.file(candidates.form(NARROW))).graph, onnx.load(tmp_path / "prepared.onnx").graph
    )
    bits = {each.node.name: 7 if np.abs(each.rows.astype(int)).max() <= 64 else 8 for each in found}

    said = {each.node: 7 if each.saturates else 8 for each in maker.layers[WIDE]}
    assert bits == said
    assert set(bits.values()) == {7, 8}


@pytest.mark.parametrize(("dark", "saturating"), [(False, "Conv_0"), (True, "MatMul_6")], ids=["noise", "dark"])
def test_layers_when_the_calibration_set_is_another_then_other_layers_saturate(
    tmp_path: Path, dark: bool, saturating: str
) -> None:
    given = models.images(6)
    if dark:  # but for one channel of one pixel: two neighbours are never large together in the first layer
        given[:] = 0
        given[:, :, 0, 8, 8] = 1
    maker = forms.Maker(models.cnn(tmp_path / "cnn.onnx"), samples.made({"image": given}), tmp_path)

    maker.file(candidates.form(NARROW))

    assert [each.node for each in maker.layers[WIDE] if each.saturates] == [saturating]
