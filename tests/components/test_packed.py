"""Golden samples as packed arrays, and what a model.json may not make the agent allocate."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import agent_check
import agent_offer
import agent_packed
import numpy as np
import pytest


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8", "bool"])
def test_packed_array_when_unpacked_then_it_is_the_same(dtype: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)

    found = agent_packed.unpack(agent_packed.pack(array))

    assert found.dtype == array.dtype
    assert (found == array).all()


def test_packed_array_when_stored_shorter_then_its_values_are_those_of_the_shorter_type() -> None:
    array = np.linspace(-1, 1, 1000, dtype=np.float32)

    packed = agent_packed.pack(array, "float16")

    assert packed["dtype"] == "float16"
    assert (agent_packed.unpack(packed) == array.astype(np.float16)).all()


def _packed(**changes: Any) -> dict[str, Any]:
    return {**agent_packed.pack(np.zeros(4, dtype=np.float32)), **changes}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (_packed(shape=[1 << 40]), "the limit is"),
        (_packed(shape=[2]), "its shape needs 8"),
        (_packed(shape=[8]), "its shape needs 32"),
        (_packed(shape=[-4]), "cannot unpack an array of float32"),
        (_packed(dtype="object"), "cannot unpack an array of object"),
        (_packed(zlib=base64.b64encode(zlib.compress(bytes(1 << 24))).decode()), "its shape needs 16"),
        (_packed(zlib="AAAA"), "cannot unpack an array"),
        (_packed(zlib="no base64!"), "base64|Incorrect padding|Invalid"),
    ],
    ids=["huge", "too long", "too short", "negative", "objects", "bomb", "no zlib", "no base64"],
)
def test_packed_array_when_it_is_none_then_refused_before_it_is_allocated(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        agent_packed.unpack(given)


def test_model_json_when_its_packed_arrays_take_too_much_together_then_refused_before_they_are_allocated() -> None:
    count = 40 * 1024 * 1024  # allowed for one
    bomb = {"dtype": "uint8", "shape": [count], "zlib": base64.b64encode(zlib.compress(bytes(count))).decode()}
    described = {
        "name": "bomb",
        "version": "1",
        "file": "bomb.onnx",
        "sha256": "0" * 64,
        "runtime": {"name": "onnxruntime"},
        "inputs": [{"name": "x", "dtype": "uint8", "shape": [-1]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1]}],
        "golden": {"tolerance": {"absolute": 0, "relative": 0}, "samples": []},
    }
    as_inputs = [{"inputs": {"x": bomb}, "outputs": {"y": [1.0]}}] * 10
    as_outputs = [{"inputs": {"x": [1]}, "outputs": {"y": bomb}}]  # which become float64

    for samples in (as_inputs, as_outputs):
        described["golden"] = {"tolerance": {"absolute": 0, "relative": 0}, "samples": samples}
        text = json.dumps(described).encode()
        assert len(text) < agent_offer.MANIFEST_LIMIT_BYTES
        with pytest.raises(
            agent_check.RefusedError, match=f"its arrays take more than {agent_packed.TOTAL_BYTES} bytes"
        ):
            agent_check.read_manifest(text)


def test_model_json_when_a_size_is_infinite_then_refused() -> None:
    described = {"inputs": [{"name": "x", "dtype": "uint8", "shape": [float("inf")]}]}

    with pytest.raises(agent_check.RefusedError, match=r"model\.json cannot be read"):
        agent_check.read_manifest(json.dumps(described).encode())
