"""What a runtime computes in, whatever it was told: numbers that only some precisions can hold are put through it.

A probe model passes 1 + 2^-k through a convolution and a matrix product that change nothing, once in the data and once in
the weights, and adds up small numbers. float32 keeps 23 binary places of a number, float16 10, bfloat16 7; where one is lost,
the runtime computes in less. The shapes are those of real layers, because runtimes lower only what pays.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.optimise import bench, candidates, samples

Array = npt.NDArray[Any]
ORDER = ("int8", "bfloat16", "float16", "float32", "float64")  # from the least
_PLACES = {"bfloat16": 7, "float16": 10, "float32": 23}
_CHANNELS, _SIDE, _DEEPEST = 64, 16, 23
_OPSET = 17  # onnxruntime 1.18, the oldest we allow, knows it
FLOAT32_NOISE = 1e-3  # of an output's range: other orders of summing move float32 by far less, bfloat16 by more


def probed(candidate: candidates.Candidate) -> str:
    """What the candidate's runtime computes float32 models in, with its settings. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="marram-") as name:
        folder = Path(name)
        model = folder / "probe.onnx"
        model.write_bytes(_model())
        given = samples.made({"numbers": _numbers()[np.newaxis], "rows": _rows()[np.newaxis]})
        with bench.Bench(given, folder).start(candidate, model) as running:
            answers, _ = running.answer(0, 1)
    return named(answers[0])


def named(answer: Mapping[str, Array]) -> str:
    """The precision that the answers to the probe show."""
    places = min(_places(answer["passed"][0, :, 0, 0]), _places(answer["weighed"][0]), _summed(answer["summed"][0]))
    return next((name for name in ("float32", "float16", "bfloat16") if places >= _PLACES[name]), "int8")


def lower(one: str, other: str) -> str:
    """The lesser of two precisions."""
    return min(one, other, key=ORDER.index)


def is_lower(one: str, other: str) -> bool:
    """Whether `one` is less than `other`."""
    return ORDER.index(one) < ORDER.index(other)


def deviation(answer: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """The largest difference, as a part of the range of that output in the reference."""
    worst = 0.0
    for name, want in reference.items():
        if want.dtype.kind == "f" and want.size:
            scale = float(np.abs(want).max()) or 1.0
            worst = max(worst, float(np.abs(answer[name].astype(np.float64) - want).max()) / scale)
    return worst


def _steps() -> Array:
    """1 + 2^-k for k = 1 to 23, then ones, [64]."""
    found = np.ones(_CHANNELS, np.float32)
    found[:_DEEPEST] += np.float32(2) ** -np.arange(1, _DEEPEST + 1, dtype=np.float32)
    return found


def _numbers() -> Array:
    return np.broadcast_to(_steps()[np.newaxis, :, np.newaxis, np.newaxis], (1, _CHANNELS, _SIDE, _SIDE)).copy()


def _rows() -> Array:
    return np.ones((1, _CHANNELS), np.float32)


def _places(found: Array) -> int:
    """How many binary places survived, in the order of _steps."""
    kept = found[:_DEEPEST].astype(np.float64) - 1 >= 2.0 ** -(np.arange(1, _DEEPEST + 1) + 1.0)
    return int(kept.argmin()) if not kept.all() else _DEEPEST


def _summed(found: Array) -> int:
    """Binary places that a sum of 1 and 63 times 2^-20 shows."""
    wrong = float(np.abs(found.astype(np.float64) - (1 + (_CHANNELS - 1) * 2.0**-20)).max())
    return _DEEPEST if wrong < 2.0**-20 else int(-np.log2(wrong))


def _model() -> bytes:
    """Outputs: `passed` (convolution of the numbers), `weighed` (rows times steps on the diagonal), `summed`."""
    onnx: Any = importlib.import_module("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    same = np.zeros((_CHANNELS, _CHANNELS, 3, 3), np.float32)
    same[np.arange(_CHANNELS), np.arange(_CHANNELS), 1, 1] = 1
    small = np.full((_CHANNELS, _CHANNELS), 2.0**-20, np.float32)
    small[0] = 1
    weights = {"same": same, "steps": np.diag(_steps()), "small": small}
    nodes = [
        helper.make_node("Conv", ["numbers", "same"], ["passed"], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["rows", "steps"], ["weighed"]),
        helper.make_node("MatMul", ["rows", "small"], ["summed"]),
    ]
    square, row = [1, _CHANNELS, _SIDE, _SIDE], [1, _CHANNELS]
    given = [helper.make_tensor_value_info(n, kind, shape) for n, shape in (("numbers", square), ("rows", row))]
    shapes = (("passed", square), ("weighed", row), ("summed", row))
    graph = helper.make_graph(
        nodes,
        "probe",
        given,
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(made.SerializeToString())
