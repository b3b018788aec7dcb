from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud.optimise import runtimes, samples, targets
from tests.cloud.optimise import models

IMAGE = (runtimes.Tensor("image", "float32", (1, 3, 16, 16)),)


def test_read_when_single_samples_have_no_batch_then_it_is_added(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=models.images(4)[:, 0])
    models.save_images(tmp_path / "b.npz", 4)

    one, other = (samples.read(tmp_path / f"{name}.npz", IMAGE) for name in "ab")

    assert one.count == 4
    assert one.one(0)["image"].shape == (1, 3, 16, 16)
    assert one.digest == other.digest


def test_read_when_labels_are_there_then_they_come_along_and_change_the_digest(tmp_path: Path) -> None:
    plain = samples.read(models.save_images(tmp_path / "a.npz", 3), IMAGE)
    labelled = samples.read(models.save_images(tmp_path / "b.npz", 3, labels=np.arange(3)), IMAGE)

    assert labelled.company["labels"].tolist() == [0, 1, 2]
    assert labelled.digest != plain.digest


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"picture": np.zeros((2, 1, 3, 16, 16), np.float32)}, "no array image; it has picture"),
        ({"image": np.zeros((2, 1, 3, 16, 17), np.float32)}, "the model takes float32"),
        ({"image": np.zeros((2, 1, 3, 16, 16), np.float64)}, "image is float64"),
        ({"image": np.zeros((2, 1, 3, 16, 16), np.float32), "labels": np.zeros(3)}, "equally many"),
        ({"image": np.zeros((0, 1, 3, 16, 16), np.float32)}, "equally many"),
    ],
    ids=["name", "shape", "type", "counts", "none"],
)
def test_read_when_the_arrays_do_not_fit_then_file_and_array_are_named(
    tmp_path: Path, arrays: dict[str, samples.Array], told: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]

    with pytest.raises(samples.SamplesError, match=told):
        samples.read(tmp_path / "x.npz", IMAGE)


def test_read_when_it_is_no_file_of_arrays_then_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no")

    with pytest.raises(samples.SamplesError, match=r"numpy\.savez"):
        samples.read(tmp_path / "x.npz", IMAGE)


def test_split_when_a_part_is_held_out_then_it_is_the_end_in_one_piece() -> None:
    whole = samples.made({"image": models.images(10)}, {"labels": np.arange(10), "anchors": np.zeros((7, 4))})

    calibration, held = samples.split(whole, 0.3)

    assert (calibration.count, held.count) == (7, 3)
    assert held.company["labels"].tolist() == [7, 8, 9]
    assert held.company["anchors"].shape == (7, 4)
    with pytest.raises(samples.SamplesError, match="one part would be empty"):
        samples.split(whole, 0.01)


def test_target_when_described_then_limits_are_optional() -> None:
    found = targets.read(
        b'{"name": "pi-4", "architecture": "aarch64", "threads": 2, "latencyMs": 40, "memoryBytes": 1}'
    )

    assert found == targets.Target("pi-4", "aarch64", "onnxruntime", 2, 1, 40.0)


@pytest.mark.parametrize(
    "given",
    [b"{}", b'{"name": "a/b"}', b'{"name": "a", "threads": 0}', b'{"name": "a", "latencyMs": -1}', b"no"],
    ids=["none", "path", "threads", "latency", "json"],
)
def test_target_when_it_cannot_be_used_then_it_is_refused(given: bytes) -> None:
    with pytest.raises(targets.TargetError, match="target"):
        targets.read(given)
