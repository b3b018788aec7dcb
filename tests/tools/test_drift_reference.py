"""A reference written from data is one that the agent reads, and what it was made of does not drift from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.components import parts
from tools import drift_reference, vision_models

agent_check = vision_models.component_module("agent_check", "model_agent")
agent_drift = vision_models.component_module("agent_drift", "model_agent")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts.MODEL / "1.1.0", tmp_path / "model"))


def samples(folder: Path, **arrays: Any) -> Path:
    path = folder.parent / "samples.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("window", [0, 200])
def test_reference_when_written_from_samples_then_the_model_is_watched_by_it(
    folder: Path, window: int, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    data = np.stack([random.normal(8, 2, 2000), random.normal(10, 5, 2000)], axis=1).astype(np.float32)

    code = drift_reference.main([str(folder), str(samples(folder, conditions=data)), "--window", str(window)])

    assert (code, "conditions (2), power_kw (1)" in capsys.readouterr().out) == (0, True)
    manifest = agent_check.read_manifest((folder / "model.json").read_bytes())
    model = agent_check.load(manifest, (folder / manifest.file).read_bytes())
    findings = []
    for shift in (0.0, 4.0):
        part = {"conditions": data[:1000] + np.float32(shift)}
        window_of = agent_drift.Window(manifest.reference)
        window_of.add(part, model.predict(part))
        findings.append(window_of.judge(agent_drift.Rules()))
    assert [finding.drifted for finding in findings] == [False, True]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [({"other": np.zeros((3, 2))}, "needs conditions"), ({"conditions": np.full((3, 2), np.nan)}, "finite numbers")],
    ids=["wrong name", "no numbers"],
)
def test_reference_when_the_data_does_not_fit_then_nothing_is_written(
    folder: Path, arrays: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = drift_reference.main([str(folder), str(samples(folder, **arrays))])

    assert (code, reason in capsys.readouterr().err) == (1, True)
    assert "reference" not in json.loads((folder / "model.json").read_text())
