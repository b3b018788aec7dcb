"""The detector's models as they are built: complete, the original's bits, and the damaged one refused by a real agent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import model_client
import pytest
import ssd

from tests.components import parts
from tools import vision_assets, vision_models

SOURCE_SHA256 = "422e8067338f43eb8e435aa34ac073cdbdd845e30800f07118c77e4bf2526f7f"


def test_models_when_built_then_every_artifact_of_their_recipes_is_there(detector: Path) -> None:
    for version in vision_models.VERSIONS:
        names = set(parts.artifact_names(f"com.example.vision.DetectorModel-{version}"))
        assert names == {path.name for path in (detector / version).iterdir()}


def test_committed_weights_when_expanded_then_they_are_the_source_byte_for_byte(detector: Path) -> None:
    whole = (detector / "1.0.0" / vision_models.FILE).read_bytes()

    assert hashlib.sha256(whole).hexdigest() == SOURCE_SHA256
    assert vision_assets.shrink(whole) == vision_assets.DETECTOR.read_bytes()


def test_quantised_model_when_compared_then_small_and_it_finds_what_the_whole_one_finds(
    device: parts.Device, detector: Path
) -> None:
    device.start_agent()
    client = model_client.Client(str(device.socket))
    inputs = vision_models.frames()[150::20]
    found = {}

    for version in ("1.0.0", "2.0.0"):
        assert device.offer(version, detector / version).returncode == 0
        answers = [client.predict("detector", {"image": one}, deadline_s=20).outputs for one in inputs]
        found[version] = [ssd.decode(one["box_encodings"], one["class_predictions"]) for one in answers]
    client.close()

    small = (detector / "2.0.0" / vision_models.FILE).stat().st_size
    assert small < 0.3 * (detector / "1.0.0" / vision_models.FILE).stat().st_size
    counts = {version: sum(map(len, frames)) for version, frames in found.items()}
    assert counts["1.0.0"] > 10
    assert abs(counts["2.0.0"] - counts["1.0.0"]) <= 0.2 * counts["1.0.0"]


def test_damaged_model_when_offered_then_refused_and_the_one_before_answers(
    device: parts.Device, detector: Path
) -> None:
    device.start_agent()
    device.offer("2.0.0", detector / "2.0.0")

    done = device.offer("3.0.0", detector / "3.0.0")

    assert done.returncode == 1
    assert "golden sample 1 of 1" in done.stderr
    assert parts.serving(device)[0]["version"] == "2.0.0"


def test_weights_when_they_hold_more_than_16_bits_then_they_are_not_shortened(detector: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string((detector / "1.0.0" / vision_models.FILE).read_bytes())
    tensor = next(one for one in model.graph.initializer if one.dims)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1e-7, tensor.name))

    with pytest.raises(ValueError, match="more than 16 bits"):
        vision_assets.shrink(model.SerializeToString())
