"""The vision demo's components: decoder, tracks, video, camera, and the application with a real camera and a real model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import agent_frames
import mjpeg
import numpy as np
import pictures
import pytest
import ssd
import tracks
from PIL import Image

from tests.components import parts
from tools import vision_assets

VISION = parts.REPOSITORY / "components/vision"
CAMERA, WATCH = "com.example.vision.Camera", "com.example.vision.Detector"
BACKGROUND, OBJECT = -10.0, 4.0  # logits


def answers(boxes: dict[int, tuple[str, tuple[float, float, float, float]]]) -> tuple[Any, Any]:
    """The detector's two outputs with these objects at these anchors and nothing else."""
    encodings = np.zeros((1, 1917, 4), dtype=np.float32)
    logits = np.full((1, 1917, 24), BACKGROUND, dtype=np.float32)
    for anchor, (name, box) in boxes.items():
        encodings[0, anchor] = ssd.encode(box, ssd.anchors()[anchor])
        logits[0, anchor, ssd.NAMES.index(name)] = OBJECT
    return encodings, logits


def seen(name: str, top: float, left: float) -> ssd.Detection:
    return ssd.Detection(name, 0.9, (top, left, top + 0.2, left + 0.1))


# ---- decoder -------------------------------------------------------------------------------------------------------------


def test_anchors_when_counted_then_they_are_the_models_and_begin_with_the_small_ones() -> None:
    assert ssd.anchors().shape == (1917, 4)
    assert np.allclose(ssd.anchors()[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert np.allclose(ssd.anchors()[-1], [0.5, 0.5, np.sqrt(0.95), np.sqrt(0.95)])


@pytest.mark.parametrize("anchor", [0, 700, 1082, 1083, 1500, 1916])
def test_decode_when_an_object_lies_at_any_anchor_then_its_box_and_class_come_out(anchor: int) -> None:
    box = (0.2, 0.3, 0.45, 0.4)

    found = ssd.decode(*answers({anchor: ("Person", box)}))

    assert [one.name for one in found] == ["Person"]
    assert np.allclose(found[0].box, box, atol=1e-5)
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-OBJECT)))


def test_decode_when_boxes_of_one_class_overlap_then_the_best_stays_and_others_stay_beside_it() -> None:
    box, near, far = (0.2, 0.2, 0.6, 0.4), (0.21, 0.2, 0.61, 0.4), (0.2, 0.7, 0.6, 0.9)
    encodings, logits = answers({100: ("Person", box), 101: ("Person", near), 102: ("Car", box), 103: ("Person", far)})
    logits[0, 101, ssd.NAMES.index("Person")] += 1

    found = ssd.decode(encodings, logits)

    assert sorted((one.name, round(one.box[0], 2), round(one.box[1], 2)) for one in found) == [
        ("Car", 0.2, 0.2),
        ("Person", 0.2, 0.7),
        ("Person", 0.21, 0.2),
    ]


def test_decode_when_nothing_is_there_then_nothing_is_found() -> None:
    assert ssd.decode(*answers({})) == []


# ---- tracks --------------------------------------------------------------------------------------------------------------


def test_tracks_when_two_walk_past_each_other_then_two_are_counted_once_each() -> None:
    found = tracks.Tracks()

    for step in range(12):
        found.feed([seen("Person", 0.3, 0.05 * step), seen("Person", 0.6, 0.6 - 0.05 * step)])

    assert found.total == {"Person": 2}
    assert {track.number for track in found.now} == {1, 2}


def test_tracks_when_one_is_hidden_for_a_moment_then_it_is_the_same_and_after_long_another() -> None:
    found = tracks.Tracks()
    for _ in range(tracks.CONFIRMED):
        found.feed([seen("Car", 0.1, 0.1)])

    for _ in range(tracks.MISSED):
        assert found.feed([]) == ()
    (same,) = found.feed([seen("Car", 0.1, 0.1)])
    for _ in range(tracks.MISSED + 1):
        found.feed([])
    (other,) = found.feed([seen("Car", 0.1, 0.1)])

    assert (same.number, other.number) == (1, 2)
    assert found.total == {"Car": 1}


def test_tracks_when_a_flicker_or_another_class_then_neither_counts_nor_takes_over() -> None:
    found = tracks.Tracks()

    for name in ("Person", "Car", "Person"):
        found.feed([seen(name, 0.1, 0.1)])

    assert found.total == {}


def test_tracks_when_a_faint_object_was_seen_before_then_it_goes_on_and_otherwise_it_begins_nothing() -> None:
    found = tracks.Tracks()
    clear = seen("Person", 0.1, 0.1)
    faint = ssd.Detection("Person", tracks.BEGIN_SCORE - 0.1, clear.box)

    assert found.feed([faint]) == ()
    found.feed([clear])
    (track,) = found.feed([faint])

    assert (track.number, track.seen) == (1, 2)


# ---- video and camera ----------------------------------------------------------------------------------------------------


def test_committed_video_when_read_then_every_frame_is_a_picture_of_one_size() -> None:
    frames = mjpeg.read(vision_assets.VIDEO)

    assert len(frames) == 226
    assert sum(map(len, frames)) <= vision_assets.VIDEO_LIMIT_BYTES
    assert {pictures.read(frame).size for frame in frames[::25]} == {vision_assets.SIZE}


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "it is empty"), (b"GIF89a", "does not begin like a JPEG"), (b"\xff\xd8\xff\xe0 torn", "is torn")],
    ids=["empty", "no jpeg", "torn"],
)
def test_video_when_it_is_none_then_the_error_says_why(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "x.mjpeg"
    path.write_bytes(data)

    with pytest.raises(ValueError, match=why):
        mjpeg.read(path)


def start_camera(device: parts.Device, rate: float = 50) -> None:
    files = parts.publish(f"{CAMERA}-1.0.0", VISION, device.root / "packages/camera")
    device.start(CAMERA, files / "camera.py", "--frames-per-second", str(rate))
    parts.until(lambda: "showing walkers.mjpeg" in device.log(CAMERA), "the camera")


def view(device: parts.Device) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(parts.WAIT_S)
    one.connect(str(device.work(CAMERA) / "camera.sock"))
    return one


def test_camera_when_two_view_then_both_see_the_frames_in_order(device: parts.Device) -> None:
    start_camera(device)
    frames = mjpeg.read(vision_assets.VIDEO)

    with view(device) as first, view(device) as second:
        for viewer in (first, second):
            shown = [agent_frames.receive(viewer) for _ in range(5)]
            numbers = [header["number"] for header, _ in shown]
            assert numbers == sorted(set(numbers))
            assert all(jpeg == frames[header["place"]] for header, jpeg in shown)


def test_camera_when_an_override_comes_and_goes_then_it_shows_that_meanwhile(device: parts.Device) -> None:
    start_camera(device)
    still = device.root / "still.jpg"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(still)
    override = device.work(CAMERA) / "source.json"

    with view(device) as viewer:
        override.write_text(json.dumps({"file": str(still)}))
        parts.until(lambda: agent_frames.receive(viewer)[1] == still.read_bytes(), "the other source")
        override.write_text('{"file": "nowhere"}')
        parts.until(lambda: "is no source" in device.log(CAMERA), "the complaint")
        assert agent_frames.receive(viewer)[1] == still.read_bytes()
        override.unlink()
        parts.until(lambda: agent_frames.receive(viewer)[0]["source"] == "walkers.mjpeg", "the video")


# ---- the application -----------------------------------------------------------------------------------------------------


def counters(device: parts.Device) -> dict[str, Any]:
    path = device.work(WATCH) / "counters.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_application_when_it_boots_first_then_it_waits_and_finds_the_walkers(
    device: parts.Device, detector: Path
) -> None:
    files = parts.publish(f"{WATCH}-1.0.0", VISION, device.root / "packages/watch")
    device.start(WATCH, files / "watch.py", "--save-every", "5")
    parts.until(lambda: "waiting for the camera" in device.log(WATCH), "the application to wait")
    start_camera(device, 10)
    device.start_agent()
    device.offer("1.0.0", detector / "1.0.0")

    found = parts.until(lambda: (now := counters(device)).get("counted", {}).get("Person") and now, "a person")
    assert found["failed"] == 0
    assert set(found["versions"]) == {"1.0.0"}
    saved = parts.until(lambda: sorted((device.work(WATCH) / "frames").glob("*.jpg")), "a picture")
    with Image.open(saved[0]) as picture:
        assert picture.size == (vision_assets.SIZE[0], vision_assets.SIZE[1] + pictures.STRIP)
    lines = [json.loads(line) for line in (device.work(WATCH) / "answers.jsonl").read_text().splitlines()]
    assert len(lines) >= found["answered"]
    assert all(line["version"] == "1.0.0" and line["ms"] > 0 for line in lines)
