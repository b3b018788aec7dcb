"""What the agent accepts, what it refuses and why, through the model's own script."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_client
import numpy as np
import psutil
import pytest

from tests.components import parts


@pytest.fixture
def running(device: parts.Device) -> parts.Device:
    device.start_agent()
    return device


def version_of(device: parts.Device) -> str:
    client = model_client.Client(str(device.socket))
    try:
        return str(parts.predict(client).version)
    finally:
        client.close()


def test_offer_when_model_is_good_then_it_answers(running: parts.Device) -> None:
    done = running.offer("1.0.0")

    assert done.returncode == 0
    assert "power-curve now answers with com.example.turbine.PowerCurveModel 1.0.0" in done.stdout
    assert version_of(running) == "1.0.0"


def test_offer_when_there_is_little_memory_then_a_small_model_takes_little(device: parts.Device) -> None:
    process = device.start_agent()
    taken = int(psutil.Process(process.pid).memory_info().vms)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (taken + 400_000_000, resource.RLIM_INFINITY))

    done = device.offer("1.0.0")

    assert done.returncode == 0, done.stderr


def test_offer_when_it_serves_already_then_accepted_at_once(running: parts.Device) -> None:
    running.offer("1.0.0")

    done = running.offer("1.0.0")

    assert (done.returncode, done.stdout) == (
        0,
        "power-curve already answers with com.example.turbine.PowerCurveModel 1.0.0\n",
    )


def test_offer_when_weights_are_damaged_under_a_right_digest_then_one_line_says_so(running: parts.Device) -> None:
    running.offer("1.1.0")

    done = running.offer("1.2.0")

    assert done.returncode == 1
    assert done.stderr.startswith(
        "cannot serve com.example.turbine.PowerCurveModel 1.2.0: GOLDEN_MISMATCH: golden sample 1 of 8: power_kw is "
    )
    assert done.stderr.endswith("power-curve still answers with com.example.turbine.PowerCurveModel 1.1.0\n")
    assert done.stderr.count("\n") == 1
    assert version_of(running) == "1.1.0"


def nan_model() -> bytes:
    """1.1.0 with a weight that is not a number, where 1.2.0 shows that a weight lies."""
    good, damaged = ((parts.MODEL / v / "power_curve.onnx").read_bytes() for v in ("1.1.0", "1.2.0"))
    last_byte = next(at for at, (one, other) in enumerate(zip(good, damaged, strict=True)) if one != other)
    nan = np.array([np.nan], dtype="<f4").tobytes()
    return good[: last_byte - 3] + nan + good[last_byte + 1 :]


def right_digest(model: bytes) -> Callable[[dict[str, Any]], None]:
    return lambda described: described.update(sha256=hashlib.sha256(model).hexdigest())


def change_input(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda described: described["inputs"][0].update(values)


def change_samples(samples: list[Any]) -> Callable[[dict[str, Any]], None]:
    return lambda described: described["golden"].update(samples=samples)


def rename_input(described: dict[str, Any]) -> None:
    described["inputs"][0]["name"] = "weather"
    for sample in described["golden"]["samples"]:
        sample["inputs"]["weather"] = sample["inputs"].pop("conditions")


CUT = (parts.MODEL / "1.1.0/power_curve.onnx").read_bytes()[:1000]
NAN = nan_model()
BAD: list[tuple[str, Callable[[dict[str, Any]], None], bytes | None, str]] = [
    ("digest", lambda described: described.update(sha256="0" * 64), None, "model.json says 000000000000"),
    ("cut", right_digest(CUT), CUT, "NOT_ONNX: power_curve.onnx"),
    ("nan", right_digest(NAN), NAN, "output power_kw is not a number"),
    ("dtype", change_input(dtype="float64"), None, "input conditions is float32 [-1, 2] in the model, float64"),
    ("shape", change_input(shape=[-1, 3]), None, "input conditions is float32 [-1, 2] in the model, float32 [-1, 3]"),
    ("name", rename_input, None, "model.json declares input weather, the model has conditions"),
    ("no-samples", change_samples([]), None, "no golden samples"),
    ("runtime", lambda described: described["runtime"].update(name="tflite"), None, "needs the runtime tflite"),
    ("newer", lambda described: described["runtime"].update(minimumVersion="99.0"), None, "needs onnxruntime 99.0"),
    ("outside", lambda described: described.update(file="../power_curve.onnx"), None, "is no plain file name"),
    ("absent", lambda described: described.update(file="other.onnx"), None, "No such file"),
    ("alias", lambda described: described.update(name="a b"), None, "is no alias"),
    ("key", lambda described: described.pop("sha256"), None, "model.json lacks 'sha256'"),
    ("kind", lambda described: described.update(inputs=3), None, "model.json cannot be read"),
    ("tolerance", lambda described: described["golden"]["tolerance"].update(absolute=float("nan")), None, "finite"),
]


@pytest.mark.parametrize(("change", "model", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_offer_when_something_is_wrong_then_refused_with_the_reason(
    unharmed: parts.Device, tmp_path: Path, change: Callable[..., None], model: bytes | None, reason: str
) -> None:
    folder = parts.changed_model(tmp_path / "offer", change, model)

    done = unharmed.offer("1.3.0", folder)

    assert done.returncode == 1
    assert reason in done.stderr
    assert version_of(unharmed) == "1.0.0"


def test_offer_when_model_json_is_no_json_then_refused(unharmed: parts.Device, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(b"\xff{")

    done = unharmed.offer("1.3.0", tmp_path)

    assert (done.returncode, "model.json cannot be read" in done.stderr) == (1, True)


def test_offer_when_alias_belongs_to_another_component_then_refused(running: parts.Device) -> None:
    running.offer("1.0.0")

    more = ("--artifacts", parts.MODEL / "1.1.0", "--component", "com.example.Other")
    done = running.hand_over("offer", "1.1.0", *more)

    assert done.returncode == 1
    assert "the alias power-curve belongs to com.example.turbine.PowerCurveModel, which is running" in done.stderr


def test_offer_when_other_component_was_released_then_accepted(running: parts.Device) -> None:
    running.offer("1.0.0")
    running.hand_over("release", "1.0.0")

    more = ("--artifacts", parts.MODEL / "1.1.0", "--component", "com.example.Other")
    done = running.hand_over("offer", "1.1.0", *more)

    assert done.returncode == 0
    assert version_of(running) == "1.1.0"


def test_committed_model_json_when_read_then_digests_match() -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        described = json.loads((parts.MODEL / version / "model.json").read_text())
        model = (parts.MODEL / version / described["file"]).read_bytes()
        assert described["version"] == version
        assert described["sha256"] == hashlib.sha256(model).hexdigest()
        assert len(model) < 100_000
