"""What both doors of the Open Inference Protocol answer, without their wires: models, inference, statistics.

A model's name is an alias, its only version is that of the component version that answers now. A request may name that
version; one that names another is NOT_FOUND, also if a new version took over while it waited. Loading and unloading are
agent_oip_repository.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import agent_aliases
import agent_check
import agent_engine
import agent_oip
import agent_oip_repository
import agent_oip_shared
import numpy as np

NAME, VERSION = "marram.ModelAgent", "1.0.0"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics", "system_shared_memory")
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
LONGEST_S = 60.0  # a request waits in the queue, as on the native door


class Service:
    """Answers for the doors; all methods may be called by many threads, and raise agent_oip.OipError."""

    def __init__(self, aliases: agent_aliases.Aliases, engine: agent_engine.Engine) -> None:
        self._aliases = aliases
        self._engine = engine

    def server(self) -> dict[str, Any]:
        """The record of this server."""
        return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}

    def ready(self) -> bool:
        """Whether everything that should answer does."""
        return all(each["ready"] for each in self._aliases.listed())

    def serving(self, name: str, version: str) -> agent_aliases.Serving:
        """What answers for a model; `version` "" is any."""
        serving = self._aliases.serving(name)
        if serving is None:
            known = any(each["alias"] == name for each in self._aliases.listed())
            code = "UNAVAILABLE" if known else "NOT_FOUND"
            why = "has no available versions" if known else "is not found"
            raise agent_oip.OipError(code, f"Request for unknown model: '{name[:256]}' {why}")
        if version not in ("", serving.version):
            raise _other_version(name, version, serving.version)
        return serving

    def infer(self, name: str, version: str, request: agent_oip.Request, left_s: float | None) -> agent_engine.Answer:
        """The model's answer with the outputs that were asked for; `left_s` is what the caller still waits, if it said."""
        manifest = self.serving(name, version).model.manifest
        _check(name, manifest, request)
        waits = [each for each in (request.timeout_s, left_s) if each is not None]
        deadline = time.monotonic() + min(LONGEST_S, *waits) if waits else time.monotonic() + LONGEST_S
        try:
            answer = self._engine.predict(name, request.inputs, deadline)
        except agent_engine.NotReadyError as error:
            raise agent_oip.OipError("UNAVAILABLE", f"Request for unknown model: {error}") from None
        except agent_engine.BusyError as error:
            late = time.monotonic() >= deadline
            raise agent_oip.OipError("DEADLINE_EXCEEDED" if late else "UNAVAILABLE", str(error)) from None
        except agent_check.InputError as error:
            raise agent_oip.wrong(str(error)) from None
        if version not in ("", answer.version):
            raise _other_version(name, version, answer.version)
        return _chosen(name, answer, request)

    def metadata(self, name: str, version: str) -> dict[str, Any]:
        """The record of a model, as in the JSON of the protocol."""
        serving = self.serving(name, version)
        manifest = serving.model.manifest
        return {
            "name": name,
            "versions": [serving.version],
            "platform": PLATFORM,
            "inputs": [_described(tensor) for tensor in manifest.inputs],
            "outputs": [_described(tensor) for tensor in manifest.outputs],
        }

    def config(self, name: str, version: str) -> dict[str, Any]:
        """A model configuration in Triton's form: shapes are whole, so there is no batch dimension of its own."""
        serving = self.serving(name, version)
        manifest = serving.model.manifest
        return {
            "name": name,
            "platform": PLATFORM,
            "backend": BACKEND,
            "max_batch_size": 0,
            "input": [_configured(tensor) for tensor in manifest.inputs],
            "output": [_configured(tensor) for tensor in manifest.outputs],
            "default_model_filename": manifest.file,
            "parameters": {
                "component": {"string_value": serving.component},
                "component_version": {"string_value": serving.version},
            },
        }

    def statistics(self, name: str = "", version: str = "") -> list[dict[str, Any]]:
        """Counts since the agent started, of one model or all; those of an alias go on when its model is exchanged."""
        if name:
            self.serving(name, version)
        figures = self._engine.figures()
        return [
            _statistics(each["alias"], each["version"], figures.get(each["alias"], {}))
            for each in self._aliases.listed()
            if not name or each["alias"] == name
        ]


@dataclass(frozen=True)
class Inside:
    """What lies behind both doors."""

    service: Service
    repository: agent_oip_repository.Repository
    regions: agent_oip_shared.Regions

    def infer(
        self, name: str, version: str, request: agent_oip.Request, token: str, left_s: float | None = None
    ) -> agent_engine.Answer:
        """As Service.infer; outputs that have places in shared memory are there afterwards."""
        self.regions.check(request, token)
        answer = self.service.infer(name, version, request, left_s)
        for output, place in request.places.items():
            self.regions.write(output, place, agent_oip.to_bytes(answer.outputs[output]), token)
        return answer


def _other_version(name: str, version: str, has: str) -> agent_oip.OipError:
    message = f"Request for unknown model: '{name}' version {version[:64]} is not found; it answers with {has}"
    return agent_oip.OipError("NOT_FOUND", message)


def _check(name: str, manifest: agent_check.Manifest, request: agent_oip.Request) -> None:
    """In Triton's words what the engine would refuse in its own."""
    declared = {tensor.name: tensor for tensor in manifest.inputs}
    for given in request.inputs:
        if given not in declared:
            raise agent_oip.wrong(f"unexpected inference input '{given}' for model '{name}'")
    if len(request.inputs) != len(declared):
        raise agent_oip.wrong(
            f"expected {len(declared)} inputs but got {len(request.inputs)} inputs for model '{name}'"
        )
    for given, array in request.inputs.items():
        want = declared[given]
        if array.dtype != np.dtype(want.dtype):
            has, wants = agent_oip.DATATYPES[array.dtype.name], agent_oip.DATATYPES[want.dtype]
            raise agent_oip.wrong(
                f"inference input '{given}' data-type is '{has}', but model '{name}' expects '{wants}'"
            )
        if not want.fits(want.dtype, array.shape):
            shapes = f"Expected {list(want.shape)}, got {list(array.shape)}"
            raise agent_oip.wrong(f"unexpected shape for input '{given}' for model '{name}'. {shapes}")
    _known_outputs(name, {tensor.name for tensor in manifest.outputs}, request)


def _chosen(name: str, answer: agent_engine.Answer, request: agent_oip.Request) -> agent_engine.Answer:
    if not request.outputs:
        return answer
    _known_outputs(name, answer.outputs.keys(), request)  # a new model may have taken over
    chosen = {each: answer.outputs[each] for each in request.outputs}
    return agent_engine.Answer(chosen, answer.component, answer.version, answer.queued_ms, answer.computed_ms)


def _known_outputs(name: str, known: Any, request: agent_oip.Request) -> None:
    for wanted in request.outputs:
        if wanted not in known:
            raise agent_oip.wrong(f"unexpected inference output '{wanted[:256]}' for model '{name}'")


def _described(tensor: agent_check.Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": agent_oip.DATATYPES[tensor.dtype], "shape": list(tensor.shape)}


def _configured(tensor: agent_check.Tensor) -> dict[str, Any]:
    datatype = f"TYPE_{agent_oip.DATATYPES[tensor.dtype]}"
    return {"name": tensor.name, "data_type": datatype, "dims": list(tensor.shape)}


def _statistics(name: str, version: str, figures: dict[str, Any]) -> dict[str, Any]:
    count, errors = int(figures.get("count", 0)), int(figures.get("errors", 0))
    computed_ns, queued_ns = (int(figures.get(key, 0.0) * 1e9) for key in ("computed_s", "queued_s"))
    return {
        "name": name,
        "version": version,
        "last_inference": int(figures.get("last_at", 0.0) * 1000),
        "inference_count": count - errors,
        "execution_count": count - errors,
        "inference_stats": {
            "success": {"count": count - errors, "ns": computed_ns + queued_ns},
            "fail": {"count": errors + int(figures.get("refused", 0)), "ns": 0},
            "queue": {"count": count, "ns": queued_ns},
            "compute_infer": {"count": count, "ns": computed_ns},
        },
    }
