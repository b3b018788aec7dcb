"""Which layers of an INT8 model saturate on CPUs without VNNI, found from the model and the calibration samples alone.

There, kernels multiply unsigned 8-bit activations with signed 8-bit weights and add two neighbouring products in 16 bits
(Intel's vpmaddubsw, "multiply and add packed signed and unsigned bytes", saturates; onnxruntime's documentation of
reduce_range names it as why weights of 7 bits exist). Neighbours are what follows each other in a row of weights: channels
last in a convolution, as onnxruntime lays it out. A layer saturates if any such sum leaves 16 bits on any calibration sample.
Depthwise convolutions multiply one by one and cannot. It is reckoned in whole numbers, so every CPU finds the same.
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
_TOP = 255  # the largest activation
_CHUNK = 4096  # pairs of weights that are looked at together


class Weights(msgspec.Struct, frozen=True):
    """One multiplying node as quantised to 8 bits: its activations' `input`, their scale and zero point, its rows of weights.

    `rows` is [groups, rows, k] int8: a row gives one output channel, in the order in which its products are summed.
    `node` is onnx's own message.
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
    """What was found of one node; `pairs` of its weights make sums beyond 16 bits, of which `largest` is the largest."""

    node: str
    op: str
    saturates: bool
    pairs: int
    largest: int
    why: str


class Watch:
    """Sees a node's activations, sample by sample."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        rows = weights.rows.astype(np.int32)
        rows = np.pad(rows, ((0, 0), (0, 0), (0, rows.shape[2] % 2)))
        one, other = rows[:, :, 0::2], rows[:, :, 1::2]
        # Only two weights of one sign can, and only if the largest activations would make them.
        can = (np.sign(one) == np.sign(other)) & ((np.abs(one) + np.abs(other)) * _TOP > MOST)
        if weights.alone:
            can[:] = False
        group, _, pair = np.nonzero(can)
        self._one, self._other = np.abs(one[can]), np.abs(other[can])
        self._places, self._at = np.unique(group * one.shape[2] + pair, return_inverse=True)
        self._seen = np.full((len(self._places), _TOP + 1), -1, np.int32)  # the largest second of each first activation

    @property
    def idle(self) -> bool:
        """Whether no activations can make these weights saturate."""
        return not len(self._places)

    def see(self, activations: Array) -> None:
        """Takes in the float32 input of one call."""
        weights = self.weights
        whole = np.rint(activations / np.float32(weights.scale)) + weights.zero
        # Signed activations are moved into unsigned ones before they are multiplied.
        stored = (np.clip(whole, weights.lowest, weights.lowest + _TOP) - weights.lowest).astype(np.int32)
        columns = _columns(weights, stored)
        columns = np.pad(columns, ((0, 0), (0, columns.shape[1] % 2), (0, 0)))
        count = columns.shape[1] // 2
        group, pair = self._places // count, self._places % count
        one, other = columns[group, 2 * pair], columns[group, 2 * pair + 1]
        place, column = np.nonzero((one + other) * 127 > MOST)
        np.maximum.at(self._seen, (place, one[place, column]), other[place, column])

    def verdict(self) -> Layer:
        """What all that was seen makes of it."""
        sums = np.zeros(len(self._at), np.int32)
        firsts = np.arange(_TOP + 1, dtype=np.int32)
        for begin in range(0, len(sums), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            seconds = self._seen[self._at[part]]
            products = self._one[part, np.newaxis] * firsts + self._other[part, np.newaxis] * seconds
            sums[part] = np.where(seconds >= 0, products, 0).max(axis=1)
        beyond = sums > MOST
        pairs, largest = int(beyond.sum()), int(sums[beyond].max(initial=0))
        node, of = self.weights.node, self.weights.rows.shape
        every = of[0] * of[1] * ((of[2] + 1) // 2)
        return Layer(node.name, node.op_type, pairs > 0, pairs, largest, self._why(pairs, largest, every))

    def _why(self, pairs: int, largest: int, every: int) -> str:
        if pairs:
            return (
                f"{pairs:,} of {every:,} pairs of weights make sums beyond {MOST:,} on the calibration samples, "
                f"up to {largest:,}: 7 bits"
            )
        if self.weights.alone:
            return "depthwise: its products are not summed in pairs: 8 bits"
        if self.idle:
            return f"no pair of its weights can make a sum beyond {MOST:,}: 8 bits"
        return f"no sum of two products is beyond {MOST:,} on the calibration samples: 8 bits"


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
    watches = [Watch(each) for each in found]
    for inputs in calls:
        for watch in watches:
            if not watch.idle:
                watch.see(inputs[watch.weights.input])
    return tuple(watch.verdict() for watch in watches)


def rows_of(node: Any, weights: Array) -> Array:
    """[groups, rows, k]: the rows of a Conv's, Gemm's or MatMul's weights in the order in which products are summed."""
    if node.op_type == "Conv":
        groups = int(graphs.attribute(node, "group", 1))
        last = np.moveaxis(weights, 1, -1)
        return last.reshape(groups, weights.shape[0] // groups, -1)
    if node.op_type == "Gemm" and graphs.attribute(node, "transB", 0):
        return weights[np.newaxis]
    return np.swapaxes(weights, -1, -2).reshape(1, -1, weights.shape[-2])


def _columns(weights: Weights, stored: Array) -> Array:
    """[groups, k, places]: what the rows of weights are multiplied with, at every place of the output."""
    node = weights.node
    if node.op_type != "Conv":
        turned = stored.T if node.op_type == "Gemm" and graphs.attribute(node, "transA", 0) else stored
        return turned.reshape(-1, turned.shape[-1]).T[np.newaxis]
    groups, rank = weights.rows.shape[0], len(weights.kernel)
    strides = graphs.attribute(node, "strides", [1] * rank)
    dilations = graphs.attribute(node, "dilations", [1] * rank)
    reach = [(size - 1) * step + 1 for size, step in zip(weights.kernel, dilations, strict=True)]
    pads = _pads(node, stored.shape[2:], reach, strides)
    padded = np.pad(stored, ((0, 0), (0, 0), *pads), constant_values=weights.zero - weights.lowest)
    padded = np.swapaxes(padded, 0, 1)
    taken = []
    for offset in itertools.product(*(range(size) for size in weights.kernel)):
        starts = [at * step for at, step in zip(offset, dilations, strict=True)]
        ends = [
            start + length - whole + 1 for start, length, whole in zip(starts, padded.shape[2:], reach, strict=True)
        ]
        places = (slice(*each) for each in zip(starts, ends, strides, strict=True))
        view = padded[(slice(None), slice(None), *places)]
        taken.append(view.reshape(groups, padded.shape[0] // groups, -1))
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
