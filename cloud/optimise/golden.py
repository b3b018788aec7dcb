"""Golden samples and model.json of a winner: what the source answers to evaluation inputs, and how near the winner is.

The format of model.json is the model agent's (components/model_agent/agent_check.py, agent_packed.py). Large arrays are
packed, and samples are taken while model.json stays below LIMIT_BYTES, which the agent does not read beyond.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import runtimes, samples

Array = npt.NDArray[Any]
LIMIT_BYTES = 900_000  # of the agent's 1 MiB
SAMPLES = 8  # at most
LARGE = 1000  # numbers; above that an array is packed, as 16-bit floats where it is of floats
# Other CPUs sum and round otherwise: half as much again as was seen here, and never less than float32's own noise.
ROOM, NOISE = 1.5, 1e-4
_HALF_MOST = 60_000.0  # what 16-bit floats hold, with room


class Sample(msgspec.Struct, frozen=True):
    """Inputs as they will be unpacked, and what the source answers to just these."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def packed(array: Array, dtype: str = "") -> dict[str, Any]:
    """agent_packed's form of an array, stored as `dtype`; equal arrays give equal bytes."""
    stored = np.ascontiguousarray(array, dtype=np.dtype(dtype or array.dtype).newbyteorder("<"))
    data = base64.b64encode(zlib.compress(stored.tobytes(), 9)).decode()
    return {"dtype": stored.dtype.name, "shape": list(stored.shape), "zlib": data}


def take(held: samples.Samples, source: runtimes.Session) -> tuple[Sample, ...]:
    """As many samples as fit, spread evenly over the evaluation set; at least one."""
    found: list[Sample] = []
    size = 0
    for at in np.linspace(0, held.count - 1, min(SAMPLES, held.count)).round().astype(int):
        inputs = {name: _stored(array) for name, array in held.one(int(at)).items()}
        sample = Sample(inputs, {name: _stored(array) for name, array in source.run(inputs).items()})
        size += len(json.dumps(_written(sample)))
        if found and size > LIMIT_BYTES:
            break
        found.append(sample)
    return tuple(found)


def tolerance(taken: tuple[Sample, ...], model: runtimes.Session) -> dict[str, float]:
    """`absolute` and `relative` within which the model answers the samples here, with ROOM."""
    far, scale = 0.0, 0.0
    for sample in taken:
        answers = model.run(sample.inputs)
        for name, want in sample.outputs.items():
            far = max(far, float(np.abs(answers[name].astype(np.float64) - want.astype(np.float64)).max(initial=0)))
            scale = max(scale, float(np.abs(want).max(initial=0)))
    return {"absolute": round(far * ROOM + NOISE * scale, 6), "relative": 1e-3}


def describe(
    alias: str,
    version: str,
    file: str,
    model: bytes,
    session: runtimes.Session,
    runtime: tuple[str, str],
    settings: runtimes.Settings,
    taken: tuple[Sample, ...],
) -> bytes:
    """The bytes of model.json for a model that `session` runs with `settings`; `runtime` is its name and version."""
    made_with = {"session": {"threads": settings.threads, "level": settings.level}}
    plain = settings == runtimes.Settings()
    content = {
        "name": alias,
        "version": version,
        "file": file,
        "sha256": hashlib.sha256(model).hexdigest(),
        "runtime": {"name": runtime[0], "minimumVersion": ".".join(runtime[1].split(".")[:2])}
        | ({} if plain else made_with),
        "inputs": [_tensor(one) for one in session.inputs],
        "outputs": [_tensor(one) for one in session.outputs],
        "golden": {"tolerance": tolerance(taken, session), "samples": [_written(one) for one in taken]},
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _stored(array: Array) -> Array:
    """As it comes back from model.json: of large arrays of floats, the 16-bit ones."""
    return array.astype(np.float16).astype(array.dtype) if _is_shortened(array) else array


def _written(sample: Sample) -> dict[str, Any]:
    return {
        side: {name: _values(array) for name, array in arrays.items()}
        for side, arrays in (("inputs", sample.inputs), ("outputs", sample.outputs))
    }


def _values(array: Array) -> Any:
    if array.size <= LARGE:
        return array.tolist()
    return packed(array, "float16" if _is_shortened(array) else "")


def _is_shortened(array: Array) -> bool:
    floats = array.dtype in (np.float32, np.float64)
    return floats and array.size > LARGE and float(np.abs(array).max()) < _HALF_MOST


def _tensor(tensor: runtimes.Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
