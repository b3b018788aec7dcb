"""`marram model optimise` from the command line to a component that the model agent and the nucleus's rules take."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from nucleus.cli import exits
from nucleus.core import signing
from tests.cli import marram
from tests.cloud.optimise import models

FORM = "INT8 per-channel U8S8 narrow"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A model, samples for it, a target and a key."""
    models.cnn(tmp_path / "cnn.onnx")
    models.save_images(tmp_path / "calibration.npz", 20, seed=1)
    models.save_images(tmp_path / "evaluation.npz", 60, seed=2)
    target = {"name": "here", "architecture": _here(), "threads": 1}
    (tmp_path / "target.json").write_text(json.dumps(target))
    return tmp_path


def _here() -> str:
    from cloud.optimise import targets

    return targets.here()


def _optimise(files: Path, *more: str | Path) -> marram.Result:
    given: dict[str, str | Path] = {
        "--calibration": files / "calibration.npz",
        "--evaluation": files / "evaluation.npz",
        "--target": files / "target.json",
        "--metric": "top1",
        "--margin": "0.2",
        "--class-margin": "0.5",
        "--component": "com.example.Cells=1.0.0",
        "--alias": "cells",
        "--out": files / "out",
    }
    given |= dict(zip(more[::2], more[1::2], strict=True))  # type: ignore[arg-type]
    arguments = [part for name, value in given.items() if value != "" for part in (name, value)]
    return marram.run("model", "optimise", files / "cnn.onnx", *arguments)


def test_optimise_when_it_has_searched_then_report_picture_and_what_it_says_agree(files: Path) -> None:
    assert marram.run("key", "create", "publisher", "--out", files).code == exits.OK

    shown = _optimise(files, "--key", files / "publisher.key", "--form", FORM, "-o", "json")

    report = json.loads((files / "out/report.json").read_text())
    item = shown.json["item"]
    assert (files / "out/report.png").read_bytes().startswith(b"\x89PNG")
    assert item["verdict"] == report["verdict"]
    told = {one["name"]: one for one in report["figures"]["outcomes"]}
    assert all(one["reasons"] for one in told.values() if one["state"] in ("refused", "passed over"))
    # Which form is fastest on so small a model is the machine's word: a component is there exactly if one won.
    if shown.code == exits.UNSATISFIED:
        assert item["best"] == item["recipe"] == ""
        assert "nothing was optimised" in item["verdict"]
        return
    assert shown.code == exits.OK
    assert told[item["best"]]["state"] == "accepted"
    folder = Path(item["artifacts"])
    manifest = json.loads((folder / signing.MANIFEST).read_text())
    assert manifest["artifacts"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("certificate.json", "model.json", "model.onnx")
    }
    assert marram.run("component", "lint", item["recipe"]).code == exits.OK


def test_optimise_when_no_form_may_win_then_nobody_says_optimised_and_the_exit_code_tells(files: Path) -> None:
    shown = _optimise(files, "--form", "ORT format")  # no agent takes it

    assert shown.code == exits.UNSATISFIED
    assert "nothing was optimised" in shown.out
    assert "Optimised: " not in shown.out
    assert sorted(path.name for path in (files / "out").iterdir()) == ["report.json", "report.png"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--margin", ""), "Missing option '--margin'"),
        (("--evaluation", "calibration.npz"), "cannot judge on the samples that calibrate"),
        (("--evaluation", "1.5"), "neither a file nor a part"),
        (("--component", "com.example.Cells"), "is not NAME=VERSION"),
        (("--metric", "detections"), "a detector answers"),
        (("--metric", "close"), "--tolerance"),
        (("--also-runtime", "tests.cloud.optimise.strange:Absent"), "not installed here"),
        (("--margin", "1"), "cannot accept a margin"),
    ],
    ids=["margin", "same-set", "part", "version", "detections", "close", "runtime", "margin-1"],
)
def test_optimise_when_something_does_not_fit_then_it_is_said_and_nothing_is_written(
    files: Path, more: tuple[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    shown = _optimise(files, *more)

    assert shown.code == exits.ERROR
    assert told in shown.err
    assert not list(files.glob("out/*"))


def test_optimise_when_the_target_is_another_machine_then_it_must_run_there(files: Path) -> None:
    (files / "target.json").write_text(json.dumps({"name": "there", "architecture": "riscv64"}))

    shown = _optimise(files)

    assert shown.code == exits.ERROR
    assert "run it there" in shown.err


def test_sign_when_platforms_have_folders_of_their_own_then_each_gets_a_manifest(files: Path) -> None:
    from cloud.optimise import components, targets

    component = components.Component("com.example.Cells", "1.0.0", "cells")
    marram.run("key", "create", "publisher", "--out", files)
    for name, architecture in (("pc", "amd64"), ("pi", "aarch64")):
        contents = {file: f"{name} {file}".encode() for file in components.FILES}
        path, _ = components.write(files / "out", component, targets.Target(name, architecture), contents)

    shown = marram.run(
        "component", "sign", path, "--key", files / "publisher.key", "--artifacts", files / "out/artifacts"
    )

    assert shown.code == exits.OK, shown.err
    for name in ("pc", "pi"):
        folder = files / "out/artifacts" / name
        manifest = json.loads((folder / signing.MANIFEST).read_text())
        assert manifest["artifacts"]["model.onnx"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        assert set(manifest["artifacts"]) == set(components.FILES)
