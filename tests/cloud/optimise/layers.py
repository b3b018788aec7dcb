"""Models of one layer whose weights and inputs are so coarse that 8 bits hold them exactly: what differs then is the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
WEIGHTS = (0, 0, 0, 1, -1)
KINDS = ("Conv", "depthwise", "MatMul", "Gemm")


def save(path: Path, kind: str, seed: int) -> Array:
    """A model with the input `x` and the output `y`; gives samples of zeros and ones for it, [2, …] float32.

    What is one is so everywhere at once, so that the largest activations do come together.
    """
    random = np.random.default_rng([seed, KINDS.index(kind)])
    node, weights, shape = _convolution(kind, random) if kind in KINDS[:2] else _product(kind, random)
    graph = helper.make_graph(
        [node],
        kind,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    ones = random.random(shape[1]) < random.choice([0.2, 0.6, 1.0])
    ones[0] = True  # the range is always 0 to 1
    given = np.zeros((2, *shape), np.float32)
    given[0] = ones.reshape(1, -1, *[1] * (len(shape) - 2))
    return given


def _convolution(kind: str, random: np.random.Generator) -> tuple[onnx.NodeProto, Array, list[int]]:
    channels, size = (
        (8 if kind == "depthwise" else int(random.choice([1, 2, 3, 4, 5, 8]))),
        int(random.choice([1, 2, 3])),
    )
    groups = channels if kind == "depthwise" else int(random.choice([1, 2])) if channels in (4, 8) else 1
    weights = random.choice(WEIGHTS, (channels if kind == "depthwise" else 4, channels // groups, size, size))
    weights[:, 0, 0, 0] = 1  # of every row: its scale is 1 / 127
    if kind == "depthwise":
        weights[:] = 1
    places: dict[str, Any] = {"pads": [int(random.integers(2))] * 4}
    if random.random() < 0.3:
        places = {"auto_pad": str(random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))}
    else:
        places["dilations"] = [int(random.choice([1, 2]))] * 2
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, strides=[int(random.choice([1, 2]))] * 2, **places)
    return node, weights, [1, channels, 7, 7]


def _product(kind: str, random: np.random.Generator) -> tuple[onnx.NodeProto, Array, list[int]]:
    long = int(random.choice([3, 4, 9, 16]))
    weights = random.choice(WEIGHTS, (long, 4))
    weights[0] = 1
    if kind == "MatMul":
        return helper.make_node("MatMul", ["x", "w"], ["y"]), weights, [5, long]
    turned = bool(random.integers(2))
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=int(turned))
    return node, weights.T if turned else weights, [5, long]
