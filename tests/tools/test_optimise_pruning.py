"""The comparison of the pruned search's pick with the exhaustive one's, on a small model in real processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from cloud.optimise import candidates, components, forms, gate, outcomes, reports, runtimes, samples, targets
from tests.cloud.optimise import models
from tools import optimise_pruning
from tools.optimise_pruning import EXHAUSTIVE, MODEL, PRUNED, SOURCE

FORM = "INT8 per-channel U8S8 narrow"
TARGET = targets.Target("here", targets.here())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a search asks for: everything that the tool would put there is there already."""
    models.cnn(tmp_path / MODEL)
    models.save_images(tmp_path / optimise_pruning.CALIBRATION, 6, seed=1)
    models.save_images(tmp_path / optimise_pruning.EVALUATION, 8, seed=2)
    (tmp_path / optimise_pruning.TARGET).write_bytes(msgspec.json.encode(TARGET))
    return tmp_path


def _searched(folder: Path, name: str, best: str, evaluation: str = "e") -> None:
    """What a search with this pick leaves."""
    listed = [
        candidates.Candidate(candidates.form(each), "onnxruntime", runtimes.Settings()) for each in (SOURCE, FORM)
    ]
    found = [outcomes.begun(each) for each in listed]
    accuracy = gate.Accuracy(8, 1.0, 1.0, 0.0, 0.0, 0.95, "none", 0, 0.0, ())
    measured = {"ratio": 1.0, "latency_ms": 1.0, "size_bytes": 1, "accuracy": accuracy}
    states = (outcomes.SOURCE, outcomes.ACCEPTED)
    known = tuple(
        msgspec.structs.replace(one, state=state, **measured) for one, state in zip(found, states, strict=True)
    )
    figures = outcomes.Figures(known, best, "source", "top-1", name == EXHAUSTIVE, 2, 1.0)
    source = (folder / MODEL).read_bytes()
    digests = {"source": hashlib.sha256(source).hexdigest(), "calibration": "c", "evaluation": evaluation}
    artifacts = folder / name / "artifacts" / TARGET.name
    artifacts.mkdir(parents=True)
    (folder / name / "report.json").write_bytes(reports.write(figures, TARGET, optimise_pruning.BOUNDS, digests, {}))
    if best:
        given = samples.made({"image": models.images(6)})
        made = forms.Maker(folder / MODEL, given, folder / name).file(candidates.form(FORM))
        (artifacts / components.MODEL).write_bytes(made.read_bytes())


def test_compare_when_both_have_searched_then_their_picks_and_the_source_take_turns(folder: Path) -> None:
    _searched(folder, PRUNED, FORM)
    _searched(folder, EXHAUSTIVE, "")  # the source wins: then it is what the other is compared with

    found = optimise_pruning.compare(folder, rounds=4)

    assert found.picks == {PRUNED: FORM, EXHAUSTIVE: SOURCE}
    assert set(found.ms) == {PRUNED, EXHAUSTIVE, SOURCE}
    assert min(found.ms.values()) > 0
    assert found.ratio > 0


def test_compare_when_the_searches_were_asked_different_things_then_refused(folder: Path) -> None:
    _searched(folder, PRUNED, FORM)
    _searched(folder, EXHAUSTIVE, FORM, evaluation="another")

    with pytest.raises(ValueError, match="different models, samples"):
        optimise_pruning.compare(folder, rounds=1)


def test_compare_when_the_model_was_changed_since_then_refused(folder: Path) -> None:
    _searched(folder, PRUNED, "")
    _searched(folder, EXHAUSTIVE, "")
    models.cnn(folder / MODEL, poison=2.0)

    with pytest.raises(ValueError, match=r"not of the detector\.onnx there"):
        optimise_pruning.compare(folder, rounds=1)


def test_main_when_a_search_is_still_lacking_then_it_says_so_and_what_is_there_stays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _searched(folder, PRUNED, FORM)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    assert optimise_pruning.main([str(folder), "--search", PRUNED]) == 0

    assert "no report of the exhaustive search" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
