"""The vision demo in a small: its own acts on real processes, with fewer pictures; service, broker, nucleus, agent, camera.

`marram model optimise` makes the 8-bit detector, as in the demo. Its acts raise what they must not see (an application that
restarted, a version that answered and may not); what they leave is looked at here.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from rich import console

from cloud.cli import demo_stage
from nucleus.cli import models
from tools import vision_models
from tools.demo_vision import figures, sheet, steps

pytestmark = [
    pytest.mark.whole,
    pytest.mark.timeout(300),  # 50 s of computing, which beside other work takes more than twice that
    *(
        pytest.mark.skipif(importlib.util.find_spec(one) is None, reason=f"there is no {one} here")
        for one in ("onnxruntime", "onnx")
    ),
]
PACE = steps.Pace(
    frames_per_second=10,
    answers=15,
    calibration=8,
    evaluation=24,
    margin=0.2,  # of so few pictures nothing closer can be proven
    forms=(vision_models.FORM,),
    trial={"share": 1.0, "minimum": 0.7, "minimumSamples": 20},
)


class Played(Struct, frozen=True):
    """What was there at the end of the story, its agent still running."""

    lines: list[dict[str, Any]]
    models: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    failures: list[str]
    contact_sheet: bytes


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with tempfile.TemporaryDirectory(prefix="mv") as name:  # short: socket paths end at 107 bytes
        folder = Path(name)
        out = console.Console(file=io.StringIO())
        with demo_stage.Stage(folder, vision_models.REPOSITORY, out) as stage:
            demo = steps.Demo(stage, PACE)
            for _, act in demo.acts():
                act()
            device = stage.device(steps.THING)
            asked = {op: models.answer(device, {"op": op}) for op in ("list", "trial")}
            client = stage.session().client("greengrassv2")
            told = client.list_effective_deployments(coreDeviceThingName=steps.THING)["effectiveDeployments"]
            yield Played(
                lines=figures.read(device / "work" / steps.APPLICATION),
                models=asked["list"]["models"],
                trials=asked["trial"]["trials"],
                failures=[one["reason"] for one in told if one["coreDeviceExecutionStatus"] != "SUCCEEDED"],
                contact_sheet=sheet.make(folder, demo.marks).read_bytes(),
            )


def test_application_when_the_model_was_changed_twice_then_every_request_was_answered(played: Played) -> None:
    failed = [line for line in played.lines if "failed" in line]

    assert failed == []
    assert len(played.lines) >= 3 * PACE.answers


def test_versions_when_swapped_then_one_answers_after_the_other_and_the_damaged_never(played: Played) -> None:
    answered = [version for version, _ in itertools.groupby(line["version"] for line in played.lines)]

    assert answered == [steps.FIRST, steps.SMALL]


def test_trial_when_it_ended_then_it_was_promoted_on_live_pictures(played: Played) -> None:
    trial = next(one for one in played.trials if one["version"] == steps.SMALL)

    assert (trial["mode"], trial["outcome"]) == ("shadow", "promoted")
    assert trial["samples"] >= PACE.trial["minimumSamples"]


def test_agent_when_the_damaged_version_was_rolled_back_then_the_optimised_one_serves(played: Played) -> None:
    (model,) = played.models

    assert (model["alias"], model["version"], model["state"]) == (vision_models.ALIAS, steps.SMALL, "serving")


def test_refusals_when_told_to_the_service_then_each_has_its_code(played: Played) -> None:
    codes = [code for code in ("SIGNATURE_MISSING", "GOLDEN_MISMATCH") for told in played.failures if code in told]

    assert codes == ["SIGNATURE_MISSING", "GOLDEN_MISMATCH"]
    assert len(played.failures) == 2


def test_contact_sheet_when_made_then_it_is_a_picture(played: Played) -> None:
    assert played.contact_sheet.startswith(b"\x89PNG")
