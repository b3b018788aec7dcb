"""The detector's releases as their publisher makes them: models, certificates, recipes; the demo signs and publishes them.

given               1.0.0's model, frames to calibrate and to judge with, the target: all that `marram model optimise` wants
original            1.0.0, certified by that run's own figures of its source
unsigned            2.0.0 as optimise wrote it, but for the signature that its recipe names
damaged             3.0.0: 2.0.0 with damaged weights. Digest, certificate and signature are right for those bytes, as if the
                    publisher's disk had failed after everything was measured: only what it answers gives it away
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from cloud.optimise import certificates, components, reports, targets
from nucleus.core import signing
from tools import vision_assets, vision_models

MODEL = "com.example.vision.DetectorModel"
FIRST, SMALL, DAMAGED = vision_models.VERSIONS
TARGET = "camera"
_PLACE = "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION"
_SIGNATURE = (signing.MANIFEST, signing.SIGNATURE)


class Folder:
    """Where the releases lie, each with its recipe and a folder of artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calibration, self.evaluation = path / "calibration.npz", path / "evaluation.npz"
        self.target, self.optimised = path / "camera.json", path / "optimised"
        self.report = self.optimised / "report.json"

    def recipe(self, version: str) -> Path:
        """The recipe of a version; 2.0.0's is where optimise writes it."""
        return self._place(version) / f"{MODEL}-{version}.yaml"

    def artifacts(self, version: str) -> Path:
        """What `--artifacts` is given for it."""
        return self._place(version) / "artifacts"

    def model(self, version: str) -> Path:
        """The model's file."""
        inner = vision_models.FILE if version == FIRST else f"{TARGET}/{components.MODEL}"
        return self.artifacts(version) / inner

    def _place(self, version: str) -> Path:
        return self.optimised if version == SMALL else self.path / version


def given(folder: Folder, calibration: int, evaluation: int) -> None:
    """1.0.0's model and model.json of the committed weights; so many frames of the video's first half to calibrate with, of
    its second half to judge with; the target, which is this machine."""
    whole, pictures = vision_assets.expand(vision_assets.DETECTOR.read_bytes()), vision_models.pictures()
    golden = vision_models.frame(pictures[vision_models.GOLDEN_FRAME])
    described = vision_models.describe(FIRST, whole, whole, golden, vision_models.TOLERANCE[FIRST])
    vision_models.write(folder.artifacts(FIRST), whole, described)
    half = len(pictures) // 2
    for path, part, count in (
        (folder.calibration, pictures[:half], calibration),
        (folder.evaluation, pictures[half:], evaluation),
    ):
        places = np.linspace(0, len(part) - 1, min(count, len(part))).astype(int)
        np.savez(path, image=np.stack([vision_models.frame(part[place]) for place in places]))
    folder.target.write_bytes(msgspec.json.encode(targets.Target(TARGET, targets.here())))


def original(folder: Folder) -> None:
    """1.0.0's recipe and certificate: the run that made 2.0.0 measured its source, too, which answers what it answers."""
    report = msgspec.json.decode(folder.report.read_bytes(), type=reports.Report)
    now = datetime.datetime.now(datetime.UTC)
    digests = {**report.digests, "model": report.digests["source"]}
    written = certificates.write(report.figures.source, report.figures, report.bounds, digests, now)
    (folder.artifacts(FIRST) / components.CERTIFICATE).write_bytes(written)
    recipe = yaml.safe_load((vision_models.REPOSITORY / "recipes" / f"{MODEL}-{FIRST}.yaml").read_text())
    for name in (components.CERTIFICATE, *_SIGNATURE):
        recipe["Manifests"][0]["Artifacts"].append({"URI": f"{_PLACE}/{name}"})
    _write(folder.recipe(FIRST), recipe)


def unsigned(folder: Folder) -> Path:
    """A recipe of 2.0.0 that names everything but the signature."""
    recipe = yaml.safe_load(folder.recipe(SMALL).read_text())
    named = recipe["Manifests"][0]["Artifacts"]
    recipe["Manifests"][0]["Artifacts"] = [one for one in named if not one["URI"].endswith(_SIGNATURE)]
    target = folder.path / "unsigned" / folder.recipe(SMALL).name
    _write(target, recipe)
    return target


def damaged(folder: Folder) -> None:
    """3.0.0's recipe and artifacts, to be signed."""
    shutil.copytree(folder.artifacts(SMALL), folder.artifacts(DAMAGED), ignore=shutil.ignore_patterns(*_SIGNATURE))
    model = folder.model(DAMAGED)
    model.write_bytes(vision_models.damage(model.read_bytes()))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    described, certificate = model.with_name(components.DESCRIPTION), model.with_name(components.CERTIFICATE)
    content = json.loads(described.read_bytes())
    described.write_text(json.dumps({**content, "version": DAMAGED, "sha256": digest}, indent=1))
    claims = json.loads(certificate.read_bytes())
    certificate.write_text(json.dumps({**claims, "model": {**claims["model"], "sha256": digest}}, indent=1))
    text = json.dumps(yaml.safe_load(folder.recipe(SMALL).read_text()))
    recipe = json.loads(text.replace(f"--version {SMALL} ", f"--version {DAMAGED} "))
    _write(folder.recipe(DAMAGED), {**recipe, "ComponentVersion": DAMAGED})


def trial() -> dict[str, Any]:
    """The model settings that the repository's recipe of 2.0.0 gives it."""
    recipe = yaml.safe_load((vision_models.REPOSITORY / "recipes" / f"{MODEL}-{SMALL}.yaml").read_text())
    found: dict[str, Any] = recipe["ComponentConfiguration"]["DefaultConfiguration"]["model"]
    return found


def _write(path: Path, recipe: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, width=110))
