"""What quantisation must know of an ONNX graph (pure, over onnx's own messages): multiplying nodes, last layers, names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

MULTIPLIES = ("Conv", "MatMul", "Gemm")
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


def narrowed(graph: Any, names: Collection[str], per_channel: bool, kind: Any) -> dict[str, list[dict[str, Any]]]:
    """onnxruntime's TensorQuantOverrides that give the weights of the nodes of these names 7 bits.

    Two products of 8 and 7 bits never exceed 16 bits (onnxruntime's documentation of reduce_range).
    """
    found = {}
    for node in graph.node:
        if node.name not in names:
            continue
        entry: dict[str, Any] = {"quant_type": kind, "reduce_range": True, "symmetric": True}
        if per_channel:
            by_rows = node.op_type == "Conv" or attribute(node, "transB", 0)
            entry["axis"] = 0 if by_rows else 1
        found[node.input[1]] = [entry]
    return found


def attribute(node: Any, name: str, otherwise: Any) -> Any:
    """An attribute of a node that is a whole number, a text or whole numbers; `otherwise` if the node has none of that name."""
    for each in node.attribute:
        if each.name == name:
            fields = {each.INT: each.i, each.STRING: each.s.decode(), each.INTS: list(each.ints)}
            return fields[each.type]
    return otherwise


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
    return [node.name for node in graph.node if node.op_type in MULTIPLIES and last[node.name]]


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of inner graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
