"""What quantisation must know of an ONNX graph (pure, over onnx's own messages): pairwise products, last layers, names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MULTIPLIES = ("Conv", "MatMul", "Gemm")
_MOVES = ("Reshape", "Transpose", "Concat", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Sigmoid", "Softmax")


def give_names(graph: Any) -> None:
    """A name for each node that has none, by its place."""
    for at, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{at}"


def drop_unused_domains(model: Any) -> None:
    """Takes out operator sets that no node needs: onnxruntime's tools declare all they know, devices refuse foreign ones."""
    if model.functions:
        return  # they may need what no node of the graph names
    used = {"", "ai.onnx"} | {node.domain for node in _nodes(model.graph)}
    kept = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def narrowed(graph: Any, per_channel: bool, kind: Any) -> dict[str, list[dict[str, Any]]]:
    """onnxruntime's TensorQuantOverrides that give the weights of pairwise summed products 7 bits.

    AVX2 kernels add two 8 x 8 bit products in 16 bits, which saturates (onnxruntime's documentation of reduce_range). Those
    of depthwise convolutions do not, and 7 bits would cost them accuracy for nothing.
    """
    weights = {tensor.name for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type not in _MULTIPLIES or len(node.input) < 2 or node.input[1] not in weights:
            continue
        if node.op_type == "Conv" and _number(node, "group", 1) > 1:
            continue
        entry: dict[str, Any] = {"quant_type": kind, "reduce_range": True, "symmetric": True}
        if per_channel:
            by_rows = node.op_type == "Conv" or _number(node, "transB", 0)
            entry["axis"] = 0 if by_rows else 1
        found[node.input[1]] = [entry]
    return found


def ends(graph: Any) -> list[str]:
    """The names of the multiplying nodes after which only the shape, or the scale of a result changes."""
    after: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            after.setdefault(name, []).append(node)
    given = {output.name for output in graph.output}
    last: dict[str, bool] = {}
    for node in reversed(graph.node):
        followers = [each for name in node.output for each in after.get(name, [])]
        ends_here = all(last[each.name] and each.op_type in _MOVES for each in followers)
        last[node.name] = ends_here and bool(followers or given.intersection(node.output))
    return [node.name for node in graph.node if node.op_type in _MULTIPLIES and last[node.name]]


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of inner graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _number(node: Any, name: str, otherwise: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), otherwise)
