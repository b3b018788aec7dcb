"""Models that hang, each a real loop of a trillion rounds: who asked is told, the core is free again, nobody else notices."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import agent_check
import agent_isolated
import agent_runs
import agent_settings
import model_client
import numpy as np
import pytest

from tests.components import crashing, parts

ENDLESS = 1 << 40
HANG_S = 0.3


def given(rounds: int) -> dict[str, Any]:
    return {"rounds": np.array([rounds]), "size": np.array([1])}


def read(folder: Path) -> tuple[agent_check.Manifest, bytes]:
    manifest = agent_check.read_manifest((folder / "model.json").read_bytes())
    return manifest, (folder / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("given_s", "slowest_s", "seconds"),
    [(0.0, 0.0, 60.0), (0.0, 0.001, 5.0), (0.0, 1.0, 20.0), (0.0, 10.0, 60.0), (2.0, 0.0, 2.0), (2.0, 10.0, 2.0)],
    ids=["nothing known", "quick", "slow", "very slow", "told", "told, and slow"],
)
def test_patience_then_as_told_or_by_the_slowest_within_bounds(
    given_s: float, slowest_s: float, seconds: float
) -> None:
    assert agent_runs.patience_s(given_s, slowest_s) == seconds


def test_patience_when_answers_come_then_only_a_slower_one_changes_it() -> None:
    patience, seen = agent_runs.Patience(), list[float]()

    for took_s in (0.5, 0.1, 1.0):
        patience.saw(took_s)
        seen.append(patience.seconds)

    assert seen == [10.0, 10.0, 20.0]


class Run(threading.Thread):
    """One request that a model inside this process computes; `error` is what became of it."""

    def __init__(self, model: agent_check.Model, rounds: int) -> None:
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._model, self._rounds = model, rounds

    def run(self) -> None:
        try:
            self._model.predict(given(self._rounds))
        except agent_check.InputError as error:
            self.error = error


def test_turn_when_a_run_is_overdue_then_it_is_ended_and_those_that_began_later_go_on(tmp_path: Path) -> None:
    model = agent_check.load(*read(crashing.laborer(tmp_path / "labor", "labor")), 10.0)
    first, second = Run(model, ENDLESS), Run(model, ENDLESS)
    first.start()
    parts.until(lambda: model.runs.turn(100.0) == 1, "the run to begin")
    second.start()
    parts.until(lambda: model.runs.turn(109.0) == 2, "the second run to begin")

    model.runs.turn(110.0)

    first.join(parts.WAIT_S)
    assert isinstance(first.error, agent_check.HungError)
    assert "ended; raise hangSeconds" in str(first.error)
    assert second.is_alive()
    assert float(model.predict(given(3))["y"][0]) == 4.0
    model.runs.turn(119.0)
    second.join(parts.WAIT_S)
    assert isinstance(second.error, agent_check.HungError)


class Scene:
    """An agent with one core that serves the power curve and, in one way or the other, a model that may hang."""

    def __init__(self, device: parts.Device, client: model_client.Client, folder: Path, **settings: Any) -> None:
        self.device, self.client = device, client
        self.folder = crashing.laborer(folder / "labor", "labor")
        device.start_agent("--cores", "1")
        assert device.offer("1.0.0").returncode == 0
        made = self.offer(**settings)
        assert made["ok"], made

    def offer(self, **settings: Any) -> dict[str, Any]:
        request = {"op": "offer", "component": "com.example.labor", "version": "1.0.0", "artifacts": str(self.folder)}
        return parts.ask(self.device, request | {"settings": settings})

    def row(self) -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in parts.serving(self.device) if each["alias"] == "labor")
        return found

    def hang(self) -> str:
        with pytest.raises(model_client.RejectedError) as caught:
            self.client.predict("labor", given(ENDLESS), deadline_s=parts.WAIT_S)
        return str(caught.value)

    def others_answer(self) -> bool:
        return parts.predict(self.client).version == "1.0.0" and self.device.processes[0].poll() is None


def test_hang_when_the_model_is_inside_the_agent_then_its_run_is_ended_and_all_models_answer(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    scene = Scene(device, client, tmp_path, hangSeconds=HANG_S)

    said = [scene.hang() for _ in range(2)]

    assert all(f"MODEL_HUNG: it computed for {HANG_S} s and was ended; raise hangSeconds" in each for each in said)
    assert scene.others_answer()
    assert float(scene.client.predict("labor", given(3), deadline_s=parts.WAIT_S).outputs["y"][0]) == 4.0


def test_hang_when_the_model_has_a_process_then_that_is_started_again_and_broken_after_five(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    scene = Scene(device, client, tmp_path, isolated=True, hangSeconds=HANG_S)
    before = scene.row()["process"]["pid"]

    said = scene.hang()

    assert "MODEL_CRASHED: the model's process hung while it computed this: no answer within 0.3 s" in said
    assert scene.others_answer()
    assert float(scene.client.predict("labor", given(3), deadline_s=parts.WAIT_S).outputs["y"][0]) == 4.0
    after = scene.row()["process"]
    assert (after["state"], after["crashes"], after["pid"] != before) == ("serving", 1, True)
    assert "hung" in after["reason"]
    while scene.row()["process"]["state"] != "broken":
        assert "MODEL_CRASHED" in scene.hang()
        assert scene.others_answer()
    assert scene.row()["process"]["crashes"] == agent_isolated.CRASHES_LIMIT


def test_hang_when_nobody_said_how_long_then_by_the_slowest_answer(tmp_path: Path) -> None:
    model = agent_isolated.load(*read(crashing.laborer(tmp_path / "labor", "labor")))

    with pytest.raises(agent_isolated.CrashedError, match="no answer within 5 s"):
        model.predict(given(ENDLESS))

    model.close()


def test_offer_when_only_hang_seconds_are_new_then_they_count(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    scene = Scene(device, client, tmp_path)
    assert scene.offer(hangSeconds=HANG_S)["ok"]

    assert "MODEL_HUNG" in scene.hang()


def test_settings_when_nobody_says_how_long_then_their_text_is_that_of_before_and_nonsense_is_named() -> None:
    assert "hangSeconds" not in agent_settings.text(agent_settings.DEFAULT)
    assert agent_settings.from_text(agent_settings.text(agent_settings.Settings(hang_s=2.0))).hang_s == 2.0
    for nonsense in (-1, 0.01, 61, True, "5"):
        with pytest.raises(agent_settings.SettingsError, match="hangSeconds is"):
            agent_settings.read({"hangSeconds": nonsense})
