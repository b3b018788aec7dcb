"""Runtimes that do what runtimes have done: compute in bfloat16 without a word, or die."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from cloud.optimise import runtimes

Array = npt.NDArray[Any]
HALVED = "tests.cloud.optimise.strange:Halved"
DYING = "tests.cloud.optimise.strange:Dying"


def to_bfloat16(array: Array) -> Array:
    """float32 numbers rounded to the nearest that bfloat16 has, ties to even."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


class Halved(runtimes.OnnxRuntime):
    """Weights, inputs and outputs in bfloat16, told to nobody."""

    name, provider = "halved", "CPU"

    def load(self, model: Path, settings: runtimes.Settings) -> runtimes.Session:
        loaded = onnx.load(model)
        for tensor in loaded.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(to_bfloat16(numpy_helper.to_array(tensor)), tensor.name))
        short = model.with_suffix(".halved.onnx")
        short.write_bytes(loaded.SerializeToString())
        return _HalvedSession(super().load(short, settings))


class _HalvedSession:
    def __init__(self, inner: runtimes.Session) -> None:
        self._inner, self.inputs, self.outputs = inner, inner.inputs, inner.outputs

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        answers = self._inner.run({name: to_bfloat16(array) for name, array in given.items()})
        return {name: to_bfloat16(array) for name, array in answers.items()}


class Dying(runtimes.OnnxRuntime):
    """Loads, and takes its process with it at the first call."""

    name = "dying"

    def load(self, model: Path, settings: runtimes.Settings) -> runtimes.Session:
        return _DyingSession(super().load(model, settings))


class _DyingSession:
    def __init__(self, inner: runtimes.Session) -> None:
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        os.abort()
