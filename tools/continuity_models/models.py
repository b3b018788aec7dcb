"""Models of known answers: versions of the INT8 detector and of a small CNN that differ by a constant in every answer.

Version N.M.0 adds M * STEP to its first output, so that each answer shows which version gave it, whatever its label says.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tools import vision_assets, vision_models

Array = np.ndarray[Any, Any]
DETECTOR, CNN = "detector", "cnn"
STEP = 0.5
DAMAGED = "3.0.0"
DETECTOR_VERSIONS = tuple(f"2.{minor}.0" for minor in range(5))
CNN_VERSIONS = tuple(f"1.{minor}.0" for minor in range(5))
_CHANNELS = (16, 32, 32, 64, 64)
_SAMPLES = 3


def build(folder: Path) -> None:
    """A folder `<alias>/<version>` for each model, and known.npz: inputs and what each version answers for them."""
    frames = vision_models.frames(25)
    whole = vision_assets.expand(vision_assets.DETECTOR.read_bytes())
    small = vision_models.quantise(whole, frames)
    random = np.random.default_rng(5)
    images = [random.uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32) for _ in range(_SAMPLES)]
    known: dict[str, Array] = {}
    for alias, base, inputs, versions in (
        (DETECTOR, small, frames[:_SAMPLES], DETECTOR_VERSIONS),
        (CNN, make_cnn(), images, CNN_VERSIONS),
    ):
        for number, one in enumerate(inputs):
            known[f"{alias} {number}"] = one
        for version in versions:
            model = shift(base, int(version.split(".")[1]) * STEP)
            for number, answer in enumerate(_write(folder / alias / version, alias, version, model, model, inputs)):
                known[f"{alias} {number} {version}"] = answer
    broken = vision_models.damage(small)
    _write(folder / DETECTOR / DAMAGED, DETECTOR, DAMAGED, broken, small, frames[:1])
    np.savez(folder / "known.npz", **known)  # type: ignore[arg-type]  # its stub means other keywords


def make_cnn() -> bytes:
    """A small network of the MobileNet kind: 3 x 112 x 112 in, ten numbers out, about 40 KB, random weights."""
    onnx = importlib.import_module("onnx")
    random, helper = np.random.default_rng(1), onnx.helper
    nodes, weights, last, width = [], [], "image", 3
    for number, channels in enumerate(_CHANNELS):
        for kind, shape, group in (
            ("deep", (width, 1, 3, 3), width),
            ("wide", (channels, width, 1, 1), 1),
        ):
            name = f"{kind}{number}"
            fan = shape[1] * shape[2] * shape[3]
            values = random.normal(0, np.sqrt(2 / fan), shape).astype(np.float32)
            weights.append(onnx.numpy_helper.from_array(values, f"{name}_w"))
            step = {"strides": [2, 2], "pads": [1, 1, 1, 1]} if kind == "deep" else {}
            nodes.append(helper.make_node("Conv", [last, f"{name}_w"], [name], group=group, **step))
            nodes.append(helper.make_node("Relu", [name], [f"{name}_r"]))
            last = f"{name}_r"
        width = channels
    weights.append(onnx.numpy_helper.from_array(random.normal(0, 0.1, (width, 10)).astype(np.float32), "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["scores"]))
    ends = (("image", [1, 3, 112, 112]), ("scores", [1, 10]))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "cnn", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def shift(model: bytes, by: float) -> bytes:
    """The model with a constant added to its first output."""
    onnx = importlib.import_module("onnx")
    loaded = onnx.load_model_from_string(model)
    name = loaded.graph.output[0].name
    for node in loaded.graph.node:
        node.output[:] = [f"{one}_plain" if one == name else one for one in node.output]
        node.input[:] = [f"{one}_plain" if one == name else one for one in node.input]
    loaded.graph.initializer.append(onnx.numpy_helper.from_array(np.array(by, dtype=np.float32), "shift"))
    loaded.graph.node.append(onnx.helper.make_node("Add", [f"{name}_plain", "shift"], [name]))
    return bytes(loaded.SerializeToString())


def session(model: bytes | str) -> Any:
    """The agent's own session options: one thread, no spinning."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _write(folder: Path, alias: str, version: str, model: bytes, right: bytes, inputs: list[Array]) -> list[Array]:
    """Writes a model component's files; returns its first output for each input."""
    described = vision_models.describe(version, model, right, inputs[0], {"absolute": 0.05, "relative": 0.05})
    described["name"] = alias
    folder.mkdir(parents=True)
    (folder / described["file"]).write_bytes(model)
    (folder / "model.json").write_text(json.dumps(described))
    made = session(model)
    first = made.get_outputs()[0].name
    return [made.run([first], {"image": one})[0] for one in inputs]
