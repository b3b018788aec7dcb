"""Builds the detector's model components of the vision demo: `python -m tools.vision_models DIR` makes DIR/<version>/.

| version | what |
|---|---|
| 1.0.0 | the detector as its makers gave it, 32-bit floats |
| 2.0.0 | 8-bit integers, one scale per channel, calibrated on frames of the video |
| 3.0.0 | 2.0.0 with a tenth of its weights damaged under a right digest: devices must refuse it |

Each holds detector.onnx and model.json with one frame as golden sample, packed (components/model_agent/agent_packed.py).
It needs onnx and onnxruntime; the frames and the weights lie in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cloud.optimise import candidates, forms, samples
from tools import vision_assets

REPOSITORY = Path(__file__).resolve().parents[1]
VERSIONS = ("1.0.0", "2.0.0", "3.0.0")
FILE, ALIAS = "detector.onnx", "detector"
FORM = "INT8 per-channel U8S8 narrow"
CALIBRATION_FRAMES, GOLDEN_FRAME, DAMAGED_PART = 20, 113, 0.1
# How far another CPU may be from this one: 8-bit kernels differ between instruction sets, by a few steps of the scale.
TOLERANCE = {"1.0.0": {"absolute": 0.05, "relative": 0.01}, "2.0.0": {"absolute": 1.0, "relative": 0.1}}
Array = np.ndarray[Any, Any]


def component_module(name: str, folder: str = "vision") -> Any:
    """A module of a component: they lie flat in their folder, as they do on a device."""
    place = str(REPOSITORY / "components" / folder)
    if place not in sys.path:
        sys.path.append(place)
    return importlib.import_module(name)


def frames(every: int = 1) -> list[Array]:
    """The detector's inputs for frames of the committed video."""
    return [frame(data) for data in pictures()[::every]]


def pictures() -> list[bytes]:
    """The frames of the committed video, JPEG."""
    return list(component_module("mjpeg").read(vision_assets.VIDEO))


def frame(picture: bytes) -> Array:
    """The detector's input for a JPEG."""
    image = importlib.import_module("PIL.Image")
    pixels = image.open(io.BytesIO(picture)).convert("RGB").resize((300, 300), image.Resampling.BILINEAR)
    return np.asarray(component_module("ssd").scale_pixels(np.asarray(pixels)))


def build(folder: Path) -> None:
    """All versions, each in a folder of its name."""
    inputs = frames()
    whole = vision_assets.expand(vision_assets.DETECTOR.read_bytes())
    small = quantise(whole, inputs[: len(inputs) // 2 : len(inputs) // 2 // CALIBRATION_FRAMES])
    golden = inputs[GOLDEN_FRAME]
    write(folder / "1.0.0", whole, describe("1.0.0", whole, whole, golden, TOLERANCE["1.0.0"]))
    write(folder / "2.0.0", small, describe("2.0.0", small, small, golden, TOLERANCE["2.0.0"]))
    broken = damage(small)
    write(folder / "3.0.0", broken, describe("3.0.0", broken, small, golden, TOLERANCE["2.0.0"]))


def quantise(model: bytes, calibration: list[Array]) -> bytes:
    """8-bit integers by the form of `marram model optimise` that keeps what it finds on every CPU.

    It is narrow, with weights of 7 bits in layers that could saturate on a CPU without VNNI: there, of the objects that the whole
    model finds, only 78 % would be found instead of 98 % (measured on AVX2).
    """
    logging.getLogger().setLevel(logging.ERROR)  # it advises a preparation that has been made
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        source.write_bytes(model)
        given = samples.made({"image": np.stack(calibration)}, {})
        return forms.Maker(source, given, Path(folder)).file(candidates.form(FORM)).read_bytes()


def damage(model: bytes) -> bytes:
    """The model with DAMAGED_PART of its 8-bit weights overwritten at random, as a bad memory would."""
    onnx, helper = importlib.import_module("onnx"), importlib.import_module("onnx.numpy_helper")
    random, loaded = np.random.default_rng(3), onnx.load_model_from_string(model)
    for tensor in loaded.graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT8 or len(tensor.dims) != 4:
            continue
        weights = helper.to_array(tensor).copy()
        hit = random.random(weights.shape) < DAMAGED_PART
        weights[hit] = random.integers(-128, 128, int(hit.sum()), dtype=np.int8)
        tensor.CopyFrom(helper.from_array(weights, tensor.name))
    return bytes(loaded.SerializeToString())


def describe(version: str, model: bytes, right: bytes, golden: Array, tolerance: dict[str, float]) -> dict[str, Any]:
    """The model.json of `model`, whose golden sample is what the model `right` answers."""
    pack = component_module("agent_packed", "model_agent").pack
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as the agent runs it
    session = runtime.InferenceSession(right, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    given = golden.astype(np.float16)
    answers = dict(zip(names, session.run(names, {"image": given.astype(np.float32)}), strict=True))
    return {
        "name": ALIAS,
        "version": version,
        "file": FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "runtime": {"name": "onnxruntime", "minimumVersion": "1.18"},
        "inputs": [{"name": "image", "dtype": "float32", "shape": list(given.shape)}],
        "outputs": [{"name": name, "dtype": "float32", "shape": list(answers[name].shape)} for name in names],
        "golden": {
            "tolerance": tolerance,
            "samples": [
                {
                    "inputs": {"image": pack(given)},
                    "outputs": {name: pack(answer, "float16") for name, answer in answers.items()},
                }
            ],
        },
    }


def write(folder: Path, model: bytes, described: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / described["file"]).write_bytes(model)
    (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    build(given.folder)
    for version in VERSIONS:
        sizes = [f"{path.name} {path.stat().st_size:,} bytes" for path in sorted((given.folder / version).iterdir())]
        print(f"{given.folder / version}: {', '.join(sizes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
