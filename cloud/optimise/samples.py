"""Calibration and evaluation sets: .npz files with one array per input of the model, whose first axis counts samples.

An evaluation set is in the order it was taken in, because neighbours in time are not independent. Arrays that are no input
of the model are its company: `labels` [n] for top1; `boxes` [n, k, 4] (ymin, xmin, ymax, xmax in 0..1) with `classes` [n, k]
(-1: no box) and `anchors` [a, 4] (centre y, centre x, height, width) for detections.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import runtimes

Array = npt.NDArray[Any]
COMPANY = ("labels", "boxes", "classes", "anchors")
_BARE = ("anchors",)  # of the set as a whole, not one for each sample


class SamplesError(ValueError):
    """A set of samples cannot be used; the message names file and array."""


class Samples(msgspec.Struct, frozen=True):
    """`inputs[name][i]` is what one call gets for `name`; `digest` is SHA-256 in hex over names, types, shapes, bytes."""

    inputs: Mapping[str, Array]
    company: Mapping[str, Array]
    digest: str

    @property
    def count(self) -> int:
        """How many samples."""
        return int(next(iter(self.inputs.values())).shape[0])

    def one(self, index: int) -> dict[str, Array]:
        """The inputs of one call."""
        return {name: array[index] for name, array in self.inputs.items()}

    def part(self, begin: int, end: int) -> Samples:
        """Samples begin to end - 1."""
        company = {name: a if name in _BARE else a[begin:end] for name, a in self.company.items()}
        return made({name: array[begin:end] for name, array in self.inputs.items()}, company)


def made(inputs: Mapping[str, Array], company: Mapping[str, Array] | None = None) -> Samples:
    """Samples of these arrays."""
    return Samples(inputs, company or {}, _digest({**inputs, **(company or {})}))


def read(path: Path, wanted: Sequence[runtimes.Tensor]) -> Samples:
    """The set in a .npz file for a model with the inputs `wanted`. Raises SamplesError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SamplesError(f"cannot read the samples in {path}: {error}; numpy.savez writes such files") from error
    lacking = [tensor.name for tensor in wanted if tensor.name not in arrays]
    if lacking:
        raise SamplesError(f"cannot use {path}: it has no array {', '.join(lacking)}; it has {', '.join(arrays)}")
    inputs = {tensor.name: _fitted(path, tensor, arrays[tensor.name]) for tensor in wanted}
    company = {name: arrays[name] for name in COMPANY if name in arrays and name not in inputs}
    counted = [*inputs.values(), *(array for name, array in company.items() if name not in _BARE)]
    counts = {array.shape[0] for array in counted}
    if len(counts) != 1 or 0 in counts:
        raise SamplesError(f"cannot use {path}: its arrays have {sorted(counts)} samples, they must have equally many")
    return made(inputs, company)


def split(samples: Samples, fraction: float) -> tuple[Samples, Samples]:
    """(for calibration, held out for evaluation): the last `fraction` is held out, whole, so that no neighbours are shared.

    Raises SamplesError when one of them would be empty.
    """
    held = round(samples.count * fraction)
    if not 0 < held < samples.count:
        raise SamplesError(f"cannot hold out {fraction:g} of {samples.count} samples: one part would be empty")
    return samples.part(0, samples.count - held), samples.part(samples.count - held, samples.count)


def _fitted(path: Path, tensor: runtimes.Tensor, array: Array) -> Array:
    """With an axis of one put after the samples' where the model takes a batch and the file has single samples."""
    if array.ndim == len(tensor.shape) and tensor.shape[:1] in ((1,), (-1,)):
        array = array[:, np.newaxis]
    sizes = array.shape[1:]
    fits = len(sizes) == len(tensor.shape) and all(w in (-1, s) for w, s in zip(tensor.shape, sizes, strict=True))
    if not fits or array.dtype.name != tensor.dtype:
        want = f"{tensor.dtype} {list(tensor.shape)}"
        raise SamplesError(
            f"cannot use {path}: {tensor.name} is {array.dtype.name} {list(sizes)}, the model takes {want}"
        )
    return array


def _digest(arrays: Mapping[str, Array]) -> str:
    summed = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        summed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        summed.update(np.ascontiguousarray(array).data)
    return summed.hexdigest()
