"""Inference runtimes behind one shape: what a candidate is loaded with, here and in the processes that measure.

A runtime is named by a word of KNOWN, or by `module:attribute` of one's own. `load` may lower precision silently, as
OpenVINO's default does on CPUs with bfloat16: precision.py finds out.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KNOWN = {
    "onnxruntime": "cloud.optimise.runtimes:OnnxRuntime",
    "openvino": "cloud.optimise.runtimes:OpenVino",
}
LEVELS = ("all", "extended", "basic", "disabled")
HINTS = ("", "f32", "bf16", "f16")  # of OpenVINO; "" leaves it to the runtime
_ONNX_TYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


class RuntimeMissingError(Exception):
    """The runtime is not installed here."""


class Tensor(msgspec.Struct, frozen=True):
    """One input or output; -1 in `shape` is any size, `dtype` is numpy's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Settings(msgspec.Struct, frozen=True):
    """How a session is made: `level` of graph optimisation, `threads` of one call, `hint` of precision."""

    level: str = "all"
    threads: int = 1
    hint: str = ""


class Session(Protocol):
    """A loaded model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name."""


class Runtime(Protocol):
    """`provider` is what computes, by the runtime's own word."""

    name: str
    version: str
    provider: str

    def load(self, model: Path, settings: Settings) -> Session:
        """Raises whatever the runtime raises."""


def find(name: str) -> Runtime:
    """The runtime of that name. Raises RuntimeMissingError."""
    module, _, attribute = KNOWN.get(name, name).partition(":")
    try:
        made: Runtime = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise RuntimeMissingError(f"the runtime {name} is not installed here: {error}") from error
    return made


def installed() -> tuple[str, ...]:
    """The words of KNOWN whose packages are here."""
    return tuple(name for name in KNOWN if importlib.util.find_spec(name) is not None)


class OnnxRuntime:
    """onnxruntime on the CPU, with the session settings of the model agent: no spinning, one thread between operators."""

    name, provider = "onnxruntime", "CPUExecutionProvider"

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("onnxruntime")
        self.version = str(self._library.__version__)

    def load(self, model: Path, settings: Settings) -> Session:
        """Raises onnxruntime's own exceptions, which share no narrower base than Exception."""
        library, options = self._library, self._library.SessionOptions()
        levels = library.GraphOptimizationLevel
        options.graph_optimization_level = {
            "all": levels.ORT_ENABLE_ALL,
            "extended": levels.ORT_ENABLE_EXTENDED,
            "basic": levels.ORT_ENABLE_BASIC,
            "disabled": levels.ORT_DISABLE_ALL,
        }[settings.level]
        options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        return _OnnxSession(library.InferenceSession(str(model), options, providers=[self.provider]))


class _OnnxSession:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs, self.outputs = _described(session.get_inputs()), _described(session.get_outputs())
        self._names = [tensor.name for tensor in self.outputs]

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, dict(given)), strict=True))


def _described(tensors: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            each.name,
            _ONNX_TYPES.get(each.type, each.type),
            tuple(size if isinstance(size, int) else -1 for size in each.shape),
        )
        for each in tensors
    )


class OpenVino:
    """OpenVINO on the CPU; without a hint it may compute in less than the model says."""

    name, provider = "openvino", "CPU"

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("openvino")
        self.version = str(self._library.__version__)

    def load(self, model: Path, settings: Settings) -> Session:
        """Raises OpenVINO's RuntimeError."""
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings.threads, "PERFORMANCE_HINT": "LATENCY"}
        if settings.hint:
            options["INFERENCE_PRECISION_HINT"] = settings.hint
        return _OpenVinoSession(self._library.Core().compile_model(str(model), self.provider, options))


class _OpenVinoSession:
    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self.inputs, self.outputs = _ports(compiled.inputs), _ports(compiled.outputs)

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        results = self._request.infer(dict(given))
        return {tensor.name: np.array(results[at]) for at, tensor in enumerate(self.outputs)}


def _ports(ports: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            port.get_any_name(),
            np.dtype(port.get_element_type().to_dtype()).name,
            tuple(size.get_length() if size.is_static else -1 for size in port.get_partial_shape()),
        )
        for port in ports
    )
