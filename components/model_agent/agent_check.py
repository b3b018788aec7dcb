"""Decides whether an offered model may serve: model.json, digest, load, schema, golden samples, no NaN.

model.json (format final; later versions of it only add keys, unknown ones are ignored):

    {"name": alias, "version": text, "file": file name, "sha256": hex, "runtime": {"name": "onnxruntime", "minimumVersion",
     "session": {} (optional; agent_session.py)},
     "inputs": [{"name", "dtype", "shape"}], "outputs": [the same],
     "golden": {"tolerance": {"absolute", "relative"}, "samples": [{"inputs": {name: values}, "outputs": {name: values}}]},
     "reference": {}}  may be left out (agent_drift.py)

`dtype` is a numpy name, `shape` a list where -1 is any size, `values` nested lists of numbers or, for large ones, a packed
array (agent_packed.py). An output agrees with a sample if |answer - expected| <= absolute + relative * |expected|
everywhere, and has no NaN or infinity.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import agent_drift
import agent_onnx
import agent_packed
import agent_runs
import agent_session
import numpy as np
import onnxruntime

Array = np.ndarray[Any, Any]
RUNTIME = "onnxruntime"
MANIFEST, SCHEMA, GOLDEN = "MODEL_JSON_NOT_VALID", "SCHEMA_MISMATCH", "GOLDEN_MISMATCH"  # codes of refusals
_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9])*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ONNX_TYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


class RefusedError(Exception):
    """The offered model may not serve; the message is one readable line, `code` a word for programs (agent_verdicts.py)."""

    def __init__(self, message: str, code: str = "REFUSED") -> None:
        super().__init__(message)
        self.code = code


class InputError(Exception):
    """A request does not fit the model's inputs; the message is one readable line."""


class HungError(InputError):
    """The model computed this for too long; asking again would not help."""

    code = "MODEL_HUNG"


@dataclass(frozen=True)
class Tensor:
    """One declared input or output; -1 in `shape` is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def fits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether an array of this type and shape is one of these."""
        sizes = len(shape) == len(self.shape) and all(
            want in (-1, size) for want, size in zip(self.shape, shape, strict=True)
        )
        return sizes and dtype == self.dtype


@dataclass(frozen=True)
class Manifest:
    """What a model.json says; `golden` holds (inputs, expected outputs) as arrays."""

    name: str
    version: str
    file: str
    sha256: str
    minimum_version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    golden: tuple[tuple[dict[str, Array], dict[str, Array]], ...]
    absolute: float
    relative: float
    session: agent_session.Session = agent_session.DEFAULT
    reference: tuple[agent_drift.Feature, ...] = ()


class Model:
    """A loaded model; `predict` may be called by many threads at once."""

    def __init__(self, manifest: Manifest, session: Any, longest_s: float = agent_runs.LONGEST_S) -> None:
        self.manifest = manifest
        self.runs = agent_runs.Runs(longest_s)
        self._lean_runs = agent_runs.Runs(longest_s, lean=True)
        self._session = session
        self._outputs = [tensor.name for tensor in manifest.outputs]
        self._fitted: list[Any] = []  # names, types and shapes of the last inputs that fitted: mostly those of the next

    def predict(self, inputs: Mapping[str, Array], lean: bool = False) -> dict[str, Array]:
        """Raises InputError if they do not fit the declared inputs or cannot be computed (in time); `lean` as agent_runs.Runs."""
        kind = [(name, array.dtype, array.shape) for name, array in inputs.items()]
        if kind != self._fitted:
            self._check(inputs)
            self._fitted = kind
        options = (self._lean_runs if lean else self.runs).options
        try:
            results = self._session.run(self._outputs, dict(inputs), options)
        except Exception as error:  # onnxruntime's own exceptions share no narrower base
            if options.terminate:
                raise HungError(
                    f"it computed for {self.runs.longest_s:g} s and was ended; raise hangSeconds if it needs longer"
                ) from error
            raise InputError(f"the model failed on these inputs: {_one_line(error)}") from error
        return dict(zip(self._outputs, results, strict=True))

    def _check(self, inputs: Mapping[str, Array]) -> None:
        declared = {tensor.name: tensor for tensor in self.manifest.inputs}
        if inputs.keys() != declared.keys():
            raise InputError(
                f"inputs are {', '.join(sorted(inputs)) or 'none'}; this model takes {', '.join(declared)}"
            )
        for name, array in inputs.items():
            if not declared[name].fits(array.dtype.name, array.shape):
                want = f"{declared[name].dtype} {list(declared[name].shape)}"
                raise InputError(f"input {name} is {array.dtype.name} {list(array.shape)}; this model takes {want}")


def read_manifest(data: bytes) -> Manifest:
    """The model.json in `data`; raises RefusedError with the key that is wrong."""
    try:
        given = json.loads(data)
        return _manifest(given)
    except RefusedError:
        raise
    except KeyError as error:
        raise RefusedError(f"model.json lacks {error}", MANIFEST) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RefusedError(f"model.json cannot be read: {_one_line(error)}", MANIFEST) from error


def load(manifest: Manifest, model: bytes, longest_s: float = agent_runs.LONGEST_S) -> Model:
    """Runs every check and returns the model, warm; raises RefusedError with the first one that fails."""
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.sha256:
        raise RefusedError(
            f"{manifest.file} has SHA-256 {digest[:12]}..., model.json says {manifest.sha256[:12]}...",
            "DIGEST_MISMATCH",
        )
    try:
        agent_onnx.check(model)
    except agent_onnx.OutsideError as error:
        raise RefusedError(f"{error.code}: {manifest.file}: {error}", error.code) from error
    if _numbers(onnxruntime.__version__) < _numbers(manifest.minimum_version):
        raise RefusedError(
            f"it needs onnxruntime {manifest.minimum_version}, this device has {onnxruntime.__version__}",
            "RUNTIME_TOO_OLD",
        )
    try:
        session = agent_session.opened(manifest.session, model)
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise RefusedError(f"{manifest.file} cannot be loaded: {_one_line(error)}", "NOT_LOADABLE") from error
    _check_schema("input", manifest.inputs, session.get_inputs())
    _check_schema("output", manifest.outputs, session.get_outputs())
    loaded = Model(manifest, session, longest_s)
    check_golden(loaded)
    return loaded


def check_golden(model: Any) -> None:
    """Asks a model (this module's or agent_isolated's) for every golden sample; raises RefusedError with the first that fails."""
    golden = model.manifest.golden
    for number, (inputs, expected) in enumerate(golden, 1):
        _check_sample(model, f"golden sample {number} of {len(golden)}", inputs, expected)


def _check_schema(kind: str, declared: tuple[Tensor, ...], found: Any) -> None:
    has = {each.name: each for each in found}
    wrong = {tensor.name for tensor in declared}.symmetric_difference(has) if kind == "input" else ()
    for tensor in declared:
        if tensor.name in wrong or tensor.name not in has:
            raise RefusedError(
                f"model.json declares {kind} {tensor.name}, the model has {', '.join(has) or 'none'}", SCHEMA
            )
        each = has[tensor.name]
        dtype = _ONNX_TYPES.get(each.type, each.type)
        shape = tuple(size if isinstance(size, int) else -1 for size in each.shape)
        sizes = len(shape) == len(tensor.shape) and all(
            own in (-1, want) for own, want in zip(shape, tensor.shape, strict=True)
        )
        if dtype != tensor.dtype or not sizes:
            want = f"{tensor.dtype} {list(tensor.shape)}"
            raise RefusedError(
                f"{kind} {tensor.name} is {dtype} {list(shape)} in the model, {want} in model.json", SCHEMA
            )
    if wrong:
        raise RefusedError(
            f"the model needs {kind} {', '.join(sorted(wrong))}, which model.json does not declare", SCHEMA
        )


def _check_sample(model: Any, which: str, inputs: dict[str, Array], expected: dict[str, Array]) -> None:
    try:
        answers = model.predict(inputs)
    except InputError as error:
        raise RefusedError(f"{which}: {error}", getattr(error, "code", GOLDEN)) from error
    manifest = model.manifest
    for name, want in expected.items():
        answer = np.asarray(answers[name], dtype=np.float64)
        if not np.isfinite(answer).all():
            raise RefusedError(f"{which}: output {name} is not a number (NaN or infinite)", "NOT_A_NUMBER")
        if answer.shape != want.shape:
            raise RefusedError(
                f"{which}: output {name} has shape {list(answer.shape)}, expected {list(want.shape)}", GOLDEN
            )
        allowed = manifest.absolute + manifest.relative * np.abs(want)
        excess = np.abs(answer - want) - allowed
        if not (excess <= 0).all():
            at = np.unravel_index(int(excess.argmax()), excess.shape)
            raise RefusedError(
                f"{which}: {name} is {answer[at]:.6g}, expected {want[at]:.6g} +- {allowed[at]:.3g}", GOLDEN
            )


def _manifest(given: Any) -> Manifest:
    inputs, outputs = _tensors(given["inputs"]), _tensors(given["outputs"])
    golden, tolerance = given["golden"], given["golden"]["tolerance"]
    limit = agent_packed.Limit()
    samples = tuple(
        (_arrays(s["inputs"], inputs, limit), _arrays(s["outputs"], outputs, limit, np.float64))
        for s in golden["samples"]
    )
    allowed = (float(tolerance["absolute"]), float(tolerance["relative"]))
    finite = all(np.isfinite(want).all() for _, expected in samples for want in expected.values())
    if not finite or not all(0 <= part < float("inf") for part in allowed):
        raise RefusedError("model.json: golden outputs and tolerance must be finite numbers", MANIFEST)
    if not samples:
        raise RefusedError("model.json has no golden samples: nothing would show that the model works", MANIFEST)
    if given["runtime"]["name"] != RUNTIME:
        raise RefusedError(
            f"it needs the runtime {given['runtime']['name']}, this agent has {RUNTIME}", "WRONG_RUNTIME"
        )
    name, file = given["name"], given["file"]
    if not _NAME.fullmatch(name) or len(name) > 256:
        raise RefusedError(
            f"model.json: name {name!r} is no alias (letters, digits and single dashes between them)", MANIFEST
        )
    if not _FILE.fullmatch(file):
        raise RefusedError(f"model.json: file {file!r} is no plain file name", MANIFEST)
    return Manifest(
        name=name,
        version=str(given["version"]),
        file=file,
        sha256=str(given["sha256"]).lower(),
        minimum_version=str(given["runtime"].get("minimumVersion", "0")),
        inputs=inputs,
        outputs=outputs,
        golden=samples,
        absolute=allowed[0],
        relative=allowed[1],
        session=agent_session.read(given["runtime"]),
        reference=agent_drift.read_reference(given.get("reference", {})),
    )


def _tensors(given: Any) -> tuple[Tensor, ...]:
    tensors = tuple(Tensor(str(t["name"]), str(t["dtype"]), tuple(int(size) for size in t["shape"])) for t in given)
    for tensor in tensors:
        if tensor.dtype not in _ONNX_TYPES.values():
            raise RefusedError(f"model.json: {tensor.name} has the unknown type {tensor.dtype}", MANIFEST)
    if not tensors:
        raise RefusedError("model.json declares no inputs or no outputs", MANIFEST)
    return tensors


def _arrays(given: Any, declared: tuple[Tensor, ...], limit: agent_packed.Limit, dtype: Any = None) -> dict[str, Array]:
    return {tensor.name: _array(given[tensor.name], np.dtype(dtype or tensor.dtype), limit) for tensor in declared}


def _array(given: Any, dtype: np.dtype[Any], limit: agent_packed.Limit) -> Array:
    values = agent_packed.unpack(given, limit, dtype.itemsize) if isinstance(given, Mapping) else given
    return np.array(values, dtype=dtype)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
