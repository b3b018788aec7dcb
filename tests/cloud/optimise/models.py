"""Small ONNX models and samples made for a test, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
CLASSES = 5


def cnn(path: Path, poison: float = 1.0, size: int = 16) -> Path:
    """[1, 3, size, size] `image` -> [1, CLASSES] `scores`: two convolutions, one of them depthwise, and a matrix.

    `poison` multiplies the weights of one filter.
    """
    random = np.random.default_rng(7)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, CLASSES)}
    weights = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["w1"][0] *= np.float32(poison)
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["g"]),
        helper.make_node("Identity", ["g"], ["scores"]),
    ]
    return _save(path, nodes, weights, {"image": [1, 3, size, size]}, {"scores": [1, CLASSES]})


def images(count: int, seed: int = 1, size: int = 16) -> Array:
    """[count, 1, 3, size, size] float32; each is a pattern of its own in noise."""
    random = np.random.default_rng(seed)
    colours = random.uniform(-1, 1, (count, 1, 3, 1, 1))
    return (colours + random.normal(0, 0.3, (count, 1, 3, size, size))).astype(np.float32)


def save_images(path: Path, count: int, seed: int = 1, **company: Array) -> Path:
    """The images as a .npz file."""
    np.savez(path, image=images(count, seed), **company)  # type: ignore[arg-type]
    return path


def _save(
    path: Path, nodes: list[Any], weights: dict[str, Array], given: dict[str, list[int]], out: dict[str, list[int]]
) -> Path:
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (given, out)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", values[0], values[1], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
