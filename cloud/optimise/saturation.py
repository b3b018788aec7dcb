"""Which layers of an INT8 model can saturate on CPUs without VNNI, found from the model and the calibration samples alone.

There, kernels multiply unsigned 8-bit activations with signed 8-bit weights and add two neighbouring products in 16 bits
(Intel's vpmaddubsw, "multiply and add packed signed and unsigned bytes", saturates; onnxruntime's documentation of
reduce_range names it as why weights of 7 bits exist). Neighbours are what follows each other in a row of weights: channels
last in a convolution, as onnxruntime lays it out. A layer can saturate if the largest activation that each place in a row
met on the calibration samples, taken together, makes such a sum leave 16 bits: they need not have come together there, so
that new samples stay below it, too. Depthwise convolutions multiply one by one and cannot.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import graphs

Array = npt.NDArray[Any]
MOST = 32_767  # what 16 bits hold; the one more below zero is not used


class Weights(msgspec.Struct, frozen=True):
    """One multiplying node as quantised to 8 bits: its activations' `input`, their scale and zero point, its rows of weights.

    `rows` is [groups, rows, k] int8: a row gives one output channel, in the order in which its products are summed. `node` is
    onnx's own message, `kernel` a convolution's, `lowest` the least activation of its type. `alone`: not summed in pairs.
    """

    node: Any
    input: str
    scale: float
    zero: int
    lowest: int
    rows: Array
    kernel: tuple[int, ...] = ()
    alone: bool = False


class Layer(msgspec.Struct, frozen=True, rename="camel"):
    """What was found of one node; `pairs` of its weights make sums beyond 16 bits, `largest` is the largest of all sums."""

    node: str
    op: str
    saturates: bool
    pairs: int
    largest: int
    why: str


def read(quantised: Any, prepared: Any) -> tuple[Weights, ...]:
    """The multiplying nodes of `quantised` (the QDQ form, 8 bits everywhere, of the graph `prepared`) with int8 weights."""
    helper: Any = importlib.import_module("onnx.numpy_helper")
    before = {node.name: node for node in prepared.node}
    constant = {tensor.name: tensor for tensor in quantised.initializer}
    makers = {name: node for node in quantised.node for name in node.output}
    found = []
    for node in quantised.node:
        if node.op_type not in graphs.MULTIPLIES or node.name not in before:
            continue
        given, weights = (makers.get(name) for name in node.input[:2])
        if given is None or weights is None or weights.input[0] not in constant:
            continue
        if {given.op_type, weights.op_type} != {"DequantizeLinear"}:
            continue
        values = helper.to_array(constant[weights.input[0]])
        if values.dtype != np.int8:
            continue
        scale, zero = (helper.to_array(constant[name]) for name in given.input[1:3])
        rows = rows_of(node, values)
        kernel = values.shape[2:] if node.op_type == "Conv" else ()
        alone = node.op_type == "Conv" and rows.shape[1] == values.shape[1] == 1 and rows.shape[0] > 1
        lowest = int(np.iinfo(zero.dtype).min)
        found.append(Weights(node, before[node.name].input[0], float(scale), int(zero), lowest, rows, kernel, alone))
    return tuple(found)


def layers(found: Sequence[Weights], calls: Iterable[Mapping[str, Array]]) -> tuple[Layer, ...]:
    """The verdict on each of `found`; `calls` gives, for each calibration sample, the float32 inputs by their names."""
    largest = [np.full((each.rows.shape[0], each.rows.shape[2]), -np.inf, np.float32) for each in found]
    for inputs in calls:
        for each, so_far in zip(found, largest, strict=True):
            if not each.alone:
                np.maximum(so_far, met(each, inputs[each.input]), out=so_far)
    return tuple(verdict(each, so_far) for each, so_far in zip(found, largest, strict=True))


def verdict(weights: Weights, largest: Array) -> Layer:
    """Whether a node can saturate that met the `largest` activations, [groups, k] float32."""
    node, (groups, rows, long) = weights.node, weights.rows.shape
    if weights.alone:
        why = "depthwise: its products are not summed in pairs: 8 bits"
        return Layer(node.name, node.op_type, saturates=False, pairs=0, largest=0, why=why)
    odd = long % 2
    whole = np.clip(np.rint(largest / np.float32(weights.scale)) + weights.zero, weights.lowest, weights.lowest + 255)
    # Signed activations are moved into unsigned ones before they are multiplied.
    stored = np.pad((whole - weights.lowest).astype(np.int32), ((0, 0), (0, odd)))
    products = np.pad(weights.rows.astype(np.int32), ((0, 0), (0, 0), (0, odd))) * stored[:, np.newaxis]
    # A sum is largest if one of the activations is none, where the weights have two signs.
    above, below = (np.maximum(each[:, :, 0::2], 0) + np.maximum(each[:, :, 1::2], 0) for each in (products, -products))
    sums = np.maximum(above, below)
    pairs, top = int((sums > MOST).sum()), int(sums.max())
    told = "with the largest activations of the calibration samples"
    if pairs:
        every = groups * rows * (long + odd) // 2
        why = f"{pairs:,} of {every:,} pairs of weights make sums beyond {MOST:,} {told}, up to {top:,}: 7 bits"
    else:
        why = f"no pair of its weights makes a sum beyond {MOST:,} {told}, only up to {top:,}: 8 bits"
    return Layer(node.name, node.op_type, pairs > 0, pairs, top, why)


def rows_of(node: Any, weights: Array) -> Array:
    """[groups, rows, k]: the rows of a Conv's, Gemm's or MatMul's weights in the order in which products are summed."""
    if node.op_type == "Conv":
        groups = int(graphs.attribute(node, "group", 1))
        last = np.moveaxis(weights, 1, -1)
        return last.reshape(groups, weights.shape[0] // groups, -1)
    if node.op_type == "Gemm" and graphs.attribute(node, "transB", 0):
        return weights[np.newaxis]
    return np.swapaxes(weights, -1, -2).reshape(1, -1, weights.shape[-2])


def met(weights: Weights, given: Array) -> Array:
    """[groups, k]: the largest activation in the input of one call that each place in a row is multiplied with."""
    node = weights.node
    if node.op_type != "Conv":
        turned = given.T if node.op_type == "Gemm" and graphs.attribute(node, "transA", 0) else given
        return np.asarray(turned.reshape(-1, turned.shape[-1]).max(axis=0)[np.newaxis])
    groups, rank = weights.rows.shape[0], len(weights.kernel)
    strides = graphs.attribute(node, "strides", [1] * rank)
    dilations = graphs.attribute(node, "dilations", [1] * rank)
    reach = [(size - 1) * step + 1 for size, step in zip(weights.kernel, dilations, strict=True)]
    padded = np.pad(given, ((0, 0), (0, 0), *_pads(node, given.shape[2:], reach, strides)))
    taken = []
    for offset in itertools.product(*(range(size) for size in weights.kernel)):
        starts = [at * step for at, step in zip(offset, dilations, strict=True)]
        ends = [
            start + length - whole + 1 for start, length, whole in zip(starts, padded.shape[2:], reach, strict=True)
        ]
        places = (slice(*each) for each in zip(starts, ends, strides, strict=True))
        view = padded[(slice(None), slice(None), *places)]
        taken.append(view.max(axis=(0, *range(2, 2 + rank))).reshape(groups, -1))
    return np.concatenate(taken, axis=1)


def _pads(node: Any, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> Sequence[tuple[int, int]]:
    """(before, after) of each axis, as ONNX's Conv has them."""
    rank, automatic = len(sizes), graphs.attribute(node, "auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        wanted = zip(sizes, reach, strides, strict=True)
        lacks = [max(0, (-(-size // step) - 1) * step + whole - size) for size, whole, step in wanted]
        lower = automatic == "SAME_LOWER"
        return [((each + lower) // 2, each - (each + lower) // 2) for each in lacks]
    given = graphs.attribute(node, "pads", [0] * (2 * rank)) if automatic == "NOTSET" else [0] * (2 * rank)
    return list(zip(given[:rank], given[rank:], strict=True))
