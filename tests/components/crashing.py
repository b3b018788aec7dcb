"""ONNX models that harm their process: one that really crashes onnxruntime, one that computes or allocates as told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto, helper

DEEP = 30_000  # branches, one in the other; onnxruntime descends by recursion when it loads them


def write(folder: Path, model: ModelProto, described: dict[str, Any]) -> Path:
    """A folder as a model component's artifacts are."""
    folder.mkdir(parents=True)
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    fixed = {"version": "1.0.0", "file": "model.onnx", "sha256": digest, "runtime": {"name": "onnxruntime"}}
    (folder / "model.json").write_text(json.dumps(fixed | described))
    return folder


def stack_breaker(folder: Path, alias: str) -> Path:
    """A regression tree whose branches lie in each other so deep that loading it ends in a real SIGSEGV (stack overflow)."""
    count = 2 * DEEP + 1
    leaves = list(range(DEEP, count))
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=[0] * count,
        nodes_modes=["BRANCH_LEQ"] * DEEP + ["LEAF"] * (DEEP + 1),
        nodes_values=[0.5] * count,
        nodes_truenodeids=[*range(1, DEEP), count - 1, *[0] * (DEEP + 1)],
        nodes_falsenodeids=[*range(DEEP, 2 * DEEP), *[0] * (DEEP + 1)],
        target_treeids=[0] * len(leaves),
        target_nodeids=leaves,
        target_ids=[0] * len(leaves),
        target_weights=[1.0] * len(leaves),
        post_transform="NONE",
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "deep", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return write(
        folder,
        helper.make_model(graph, opset_imports=opsets, ir_version=8),
        {
            "name": alias,
            "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 1]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 1]}],
            "golden": {
                "tolerance": {"absolute": 0, "relative": 0},
                "samples": [{"inputs": {"x": [[0]]}, "outputs": {"y": [[1]]}}],
            },
        },
    )


def laborer(folder: Path, alias: str, golden_size: int = 3) -> Path:
    """y = rounds + size, by so many rounds of a loop and a sum over so many numbers (float32) in memory."""
    integer, number = TensorProto.INT64, TensorProto.FLOAT
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node(
                "ConstantOfShape", ["size"], ["filled"], value=helper.make_tensor("v", number, [1], [1.0])
            ),
            helper.make_node("ReduceSum", ["filled"], ["total"], keepdims=0),
            helper.make_node("Squeeze", ["rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "", "total"], ["looped"], body=_round()),
            helper.make_node("Reshape", ["looped", "shape"], ["y"]),
        ],
        "laborer",
        [info("rounds", integer, [1]), info("size", integer, [1])],
        [info("y", number, [1])],
        [helper.make_tensor("shape", integer, [1], [1])],
    )
    given = {"rounds": [2], "size": [golden_size]}
    return write(
        folder,
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        {
            "name": alias,
            "inputs": [{"name": name, "dtype": "int64", "shape": [1]} for name in given],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [1]}],
            "golden": {
                "tolerance": {"absolute": 0, "relative": 0},
                "samples": [{"inputs": given, "outputs": {"y": [2 + golden_size]}}],
            },
        },
    )


def _round() -> Any:
    """One round of the loop: sum + 1."""
    integer, number, truth = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL
    info = helper.make_tensor_value_info
    return helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Constant", [], ["step"], value=helper.make_tensor("one", number, [], [1.0])),
            helper.make_node("Add", ["sum", "step"], ["more"]),
        ],
        "round",
        [info("round", integer, []), info("going", truth, []), info("sum", number, [])],
        [info("goes_on", truth, []), info("more", number, [])],
    )
