"""A reference written from data is one that the agent reads, and what it was made of does not drift from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import replay
import yaml

from tests.components import parts
from tools import drift_reference, vision_models

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
agent_check = vision_models.component_module("agent_check", "model_agent")
agent_drift = vision_models.component_module("agent_drift", "model_agent")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that has no reference yet."""
    made = Path(shutil.copytree(parts.MODEL / "1.1.0", tmp_path / "model"))
    described = json.loads((made / "model.json").read_text())
    del described["reference"]
    (made / "model.json").write_text(json.dumps(described))
    return made


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


# ---- the turbines' ------------------------------------------------------------------------------------------------------


def year(turbine: str) -> Any:
    """Wind speed and temperature as the monitor sends them, every ten minutes for a year."""
    rows = replay.read(parts.MONITOR / "scada.csv.gz", turbine)
    return np.array([[row.wind_speed_m_s, row.outdoor_c] for row in rows if row is not None], np.float32)


def drifted(version: str, conditions: Any) -> list[bool]:
    """Of each window of the recipe's settings, as the agent judges it."""
    recipe = yaml.safe_load((parts.RECIPES / f"{parts.MODEL_NAME}-{version}.yaml").read_text())
    rules = agent_drift.read(recipe["ComponentConfiguration"]["DefaultConfiguration"]["model"]["drift"])
    manifest = agent_check.read_manifest((parts.MODEL / version / "model.json").read_bytes())
    model = agent_check.load(manifest, (parts.MODEL / version / manifest.file).read_bytes())
    found = []
    for start in range(0, len(conditions) - rules.window, rules.window):
        part = {"conditions": conditions[start : start + rules.window]}
        window = agent_drift.Window(manifest.reference)
        window.add(part, model.predict(part))
        found.append(window.judge(rules).drifted)
    return found


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [([[1, 0], [1, 0]], 0.0, 0.1), ([[0, 5.3], [1, 0]], 1.0, 1.0), ([[1, 0], [1, 15]], 0.5, 1.0)],
    ids=["healthy", "wind stuck", "15 degrees too warm"],
)
def test_reference_of_the_turbines_when_a_year_is_watched_then_a_fault_stands_out(
    version: str, fault: list[list[float]], least: float, most: float
) -> None:
    """`fault` is a factor and an addend for wind speed and temperature; the shares are those of components/README.md."""
    factor, addend = np.array(fault, np.float32).T
    windows = [one for turbine in ("R80711", "R80721") for one in drifted(version, year(turbine) * factor + addend)]

    assert len(windows) == 50
    assert least <= sum(windows) / len(windows) <= most


def test_reference_of_the_damaged_version_when_compared_then_it_is_that_of_the_model_it_was() -> None:
    references = [json.loads((parts.MODEL / version / "model.json").read_text())["reference"] for version in VERSIONS]

    assert references[1] == references[2] != references[0]
