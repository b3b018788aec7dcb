"""ONNX models made for a test: outputs that equal their inputs, one of each data type or as large as wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DTYPES = (
    *("bool", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)


def identity(folder: Path, alias: str, tensors: Mapping[str, str], version: str = "1.0.0") -> Path:
    """A model in `folder` that answers `<name>_out` for each `name` -> data type, of any length."""
    folder.mkdir(parents=True)
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in tensors]
    values = [
        [helper.make_tensor_value_info(f"{name}{end}", _onnx(dtype), ["n"]) for name, dtype in tensors.items()]
        for end in ("", "_out")
    ]
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "identity", *values), opset_imports=opset, ir_version=8)
    data = model.SerializeToString()
    (folder / "identity.onnx").write_bytes(data)
    described = {
        "name": alias,
        "version": version,
        "file": "identity.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": {"name": "onnxruntime"},
        "inputs": [{"name": name, "dtype": dtype, "shape": [-1]} for name, dtype in tensors.items()],
        "outputs": [{"name": f"{name}_out", "dtype": dtype, "shape": [-1]} for name, dtype in tensors.items()],
        "golden": {
            "tolerance": {"absolute": 0, "relative": 0},
            "samples": [
                {"inputs": {name: [1] for name in tensors}, "outputs": {f"{name}_out": [1] for name in tensors}}
            ],
        },
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def weighty(folder: Path, alias: str, number: int, megabytes: float, version: str = "") -> Path:
    """A model in `folder` with that many MB of weights, which answers `number` times the mean of its 64 inputs.

    All weights take part in every answer, so one of a model that is not whole would be another number.
    """
    folder.mkdir(parents=True)
    weights = np.full((64, max(1, int(megabytes * 1e6 / 256))), number / 64, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["products"]),
        helper.make_node("ReduceMean", ["products"], ["y"], axes=[1], keepdims=0),
    ]
    values = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    ]
    graph = helper.make_graph(nodes, "weighty", *values, [numpy_helper.from_array(weights, "weights")])
    return _save(folder, alias, number, graph, version)


def swelling(folder: Path, alias: str, megabytes: float, ballast: float = 0.0) -> Path:
    """A file whose weights, so many MB, are made when it is loaded; answers the mean of its 64 inputs.

    `ballast`: MB of weights, all 0, that are in the file.
    """
    folder.mkdir(parents=True)
    zeros = numpy_helper.from_array(np.zeros((64, max(1, int(ballast * 1e6 / 256))), np.float32), "zeros")
    shape = numpy_helper.from_array(np.array([64, int(megabytes * 1e6 / 256)], np.int64), "shape")
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1 / 64])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["weights"], value=value),
        helper.make_node("MatMul", ["x", "weights"], ["products"]),
        helper.make_node("ReduceMean", ["products"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["x", "zeros"], ["nothing"]),
        helper.make_node("ReduceMean", ["nothing"], ["zero"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "zero"], ["y"]),
    ]
    values = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    ]
    return _save(folder, alias, 1, helper.make_graph(nodes, "swelling", *values, [shape, zeros]), "")


def _save(folder: Path, alias: str, number: int, graph: onnx.GraphProto, version: str) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = model.SerializeToString()
    (folder / "weighty.onnx").write_bytes(data)
    described = {
        "name": alias,
        "version": version or f"{number}.0.0",
        "file": "weighty.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": {"name": "onnxruntime"},
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1]}],
        "golden": {
            "tolerance": {"absolute": 0.001, "relative": 0.001},
            "samples": [{"inputs": {"x": [[1] * 64]}, "outputs": {"y": [number]}}],
        },
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def _onnx(dtype: str) -> int:
    return int(getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, np.dtype(dtype).name.upper())))
