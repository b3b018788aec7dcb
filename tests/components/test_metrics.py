"""Metrics of a real agent over a real IPC, what an interval is, and captures and drift of models that a real agent serves."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import uuid
from pathlib import Path
from typing import Any

import agent_drift
import agent_frames
import agent_metrics
import agent_settings
import agent_status
import model_client
import numpy as np
import pytest

from nucleus.testkit import nucleus
from tests.components import parts

ALIAS = "power-curve"
TOPIC = f"marram/models/{ALIAS}"


class Scene:
    """An agent of a nucleus; callers are known by their user."""

    def __init__(self, device: parts.Device, marram_nucleus: nucleus.Nucleus) -> None:
        self.device = device
        self.nucleus = marram_nucleus
        self.client = model_client.Client(str(device.socket))
        self._app = marram_nucleus.component("marram.ModelAgent")

    def start(self, **sections: Any) -> Any:
        variables = {f"MARRAM_{name.upper()}": json.dumps(value) for name, value in sections.items()}
        environment = {**self._app.environment, **variables}
        return self.device.start_agent("--callers", "sameUser", environment=environment)

    def offer(self, version: str, folder: Path | None = None, **settings: Any) -> None:
        done = self.device.hand_over(
            "offer", version, "--artifacts", folder or parts.MODEL / version, "--settings", json.dumps(settings)
        )
        assert done.returncode == 0, done.stderr

    def ask(self, count: int, conditions: tuple[float, float] = (8.0, 10.0)) -> None:
        for _ in range(count):
            self.client.predict(ALIAS, {"conditions": np.array([conditions], np.float32)}, deadline_s=20.0)

    def row(self) -> dict[str, Any]:
        (row,) = parts.serving(self.device)
        return row


@pytest.fixture
def scene(device: parts.Device, marram_nucleus: nucleus.Nucleus) -> Any:
    made = Scene(device, marram_nucleus)
    yield made
    made.client.close()


def test_metrics_when_asked_then_totals_and_intervals_add_up_here_and_in_the_cloud(scene: Scene) -> None:
    heard = scene.nucleus.subscribe(f"{TOPIC}/metrics")
    scene.start(metrics={"localSeconds": 1, "cloudSeconds": 2})
    scene.offer("1.0.0")
    scene.ask(5)
    with pytest.raises(model_client.RejectedError):
        scene.client.predict(ALIAS, {"wrong": np.zeros((1, 2), np.float32)}, deadline_s=5.0)

    messages = [heard.get()]
    while messages[-1]["total"]["count"] < 6:
        messages.append(heard.get())
    scene.ask(2)
    while messages[-1]["total"]["count"] < 8:
        messages.append(heard.get())

    last = messages[-1]
    assert (last["component"], last["version"], last["state"]) == (parts.MODEL_NAME, "1.0.0", "serving")
    assert (last["total"]["count"], last["total"]["errors"]) == (8, 1)
    assert sum(last["total"]["latencyMs"].values()) == 8
    assert sum(message["interval"]["count"] for message in messages) == 8
    assert sum(sum(message["interval"]["latencyMs"].values()) for message in messages) == 8
    assert last["memory"]["agentBytes"] > 10_000_000
    assert last["memory"]["modelBytes"] >= 0
    assert "captures" not in last
    topic = f"marram/things/test-thing/models/{ALIAS}/metrics"
    scene.nucleus.until(lambda: any(each[0] == topic for each in list(scene.nucleus.iot_core.published)), "the cloud's")


def test_metrics_when_the_agent_ends_then_its_last_figures_are_told(scene: Scene) -> None:
    heard = scene.nucleus.subscribe(f"{TOPIC}/metrics")
    process = scene.start(metrics={"localSeconds": 3600, "cloudSeconds": 0})
    scene.offer("1.0.0")
    scene.ask(3)

    process.terminate()

    assert heard.get()["interval"]["count"] == 3
    assert process.wait(parts.WAIT_S) == 0
    assert not [each[0] for each in scene.nucleus.iot_core.published if each[0].endswith("/metrics")]


@pytest.mark.parametrize(
    ("section", "key"),
    [({"metrics": {"localSeconds": -1}}, "localSeconds"), ({"captures": {"fleet": "../up"}}, "'../up'")],
    ids=["metrics", "captures"],
)
def test_agent_when_a_section_means_nothing_then_it_does_not_start_and_says_why(
    device: parts.Device, section: dict[str, Any], key: str
) -> None:
    variables = {f"MARRAM_{name.upper()}": json.dumps(value) for name, value in section.items()}
    process = device.start("marram.ModelAgent", device.agent_files / "agent.py", environment=variables)

    assert process.wait(parts.WAIT_S) == 1
    assert key in device.log("marram.ModelAgent")


def test_capture_when_asked_for_then_on_disk_before_the_answer_and_there_after_a_kill(scene: Scene) -> None:
    process = scene.start(captures={"directory": "kept"})
    scene.offer("1.0.0", capture={"onRequest": True})
    scene.ask(1, (11.0, 5.0))
    wanted = str(uuid.uuid4())

    reply = parts.ask(scene.device, {"op": "capture", "alias": ALIAS, "id": wanted})
    process.kill()
    process.wait(parts.WAIT_S)

    assert (reply["ok"], reply["id"]) == (True, wanted)
    (file,) = (scene.device.work("marram.ModelAgent") / "kept").rglob("*.jsonl")
    line = json.loads(file.read_text())
    assert file.relative_to(scene.device.work("marram.ModelAgent")).parts[:3] == ("kept", "default", ALIAS)
    assert (line["eventMetadata"]["eventId"], line["eventMetadata"]["modelVersion"]) == (wanted, "1.0.0")


def capture_until_gone(device: parts.Device, safe: list[str]) -> None:
    """Adds the ids of which the agent said that they are safe."""
    with contextlib.suppress(OSError, agent_frames.ClosedError, agent_frames.FrameError):
        while True:
            safe.append(parts.ask(device, {"op": "capture", "alias": ALIAS})["id"])


def test_capture_when_the_agent_is_killed_again_and_again_then_all_that_it_acknowledged_is_there(scene: Scene) -> None:
    chance = random.Random(20261124)
    safe: list[str] = []
    for turn in range(3):
        process = scene.start(captures={"directory": "kept"})
        if not turn:
            scene.offer("1.0.0", capture={"rate": 1.0, "onRequest": True})
        scene.ask(1)
        enough = len(safe) + chance.randrange(1, 8)
        threads = [threading.Thread(target=capture_until_gone, args=(scene.device, safe)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(safe) < enough:
            scene.ask(1)
        process.kill()
        for thread in threads:
            thread.join(parts.WAIT_S)
        process.wait(parts.WAIT_S)

    scene.start(captures={"directory": "kept"})  # cuts off what was half written
    scene.ask(1)
    parts.ask(scene.device, {"op": "capture", "alias": ALIAS})
    kept = [
        json.loads(line)["eventMetadata"]["eventId"]
        for path in (scene.device.work("marram.ModelAgent") / "kept").rglob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(safe) >= 3
    assert set(safe) <= set(kept)
    assert len(kept) == len(set(kept))


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"alias": "nobody"}, "NOT_READY"),
        ({"alias": ALIAS}, "FAILED_PRECONDITION"),
        ({}, "INVALID_ARGUMENT"),
        ({"alias": ALIAS, "id": 7}, "INVALID_ARGUMENT"),
    ],
    ids=str,
)
def test_capture_when_it_cannot_be_then_a_code_says_why(
    unharmed: parts.Device, header: dict[str, Any], code: str
) -> None:
    client = model_client.Client(str(unharmed.socket))
    parts.predict(client)
    client.close()

    reply = parts.ask(unharmed, {"op": "capture", **header})

    assert (reply["ok"], reply["code"]) == (False, code)


@pytest.mark.parametrize("section", [{"capture": {"rate": 2}}, {"drift": {"action": "explode"}}], ids=str)
def test_offer_when_a_section_means_nothing_then_refused(unharmed: parts.Device, section: dict[str, Any]) -> None:
    done = unharmed.hand_over("offer", "1.1.0", "--artifacts", parts.MODEL / "1.1.0", "--settings", json.dumps(section))

    assert done.returncode == 1
    assert next(iter(section)) in done.stderr


def watched_model(folder: Path) -> Path:
    """1.1.0 with a reference of moderate winds."""
    random = np.random.default_rng(7)
    conditions = np.stack([random.normal(8, 1, 5000), random.normal(10, 2, 5000)], axis=1)

    def add(described: dict[str, Any]) -> None:
        described["reference"] = agent_drift.reference({"conditions": conditions}, {})

    return parts.changed_model(folder, add)


def test_drift_when_told_to_roll_back_then_held_durably_and_reported(scene: Scene, tmp_path: Path) -> None:
    heard = scene.nucleus.subscribe(f"{TOPIC}/drift")
    statuses = scene.nucleus.subscribe(f"{TOPIC}/status")
    process = scene.start()
    scene.offer("1.0.0")
    drift = {"windowSamples": 100, "consecutive": 2, "action": "rollback"}
    scene.offer("1.1.0", watched_model(tmp_path / "m"), drift=drift)
    storm = {"conditions": np.full((100, 2), 20.0, np.float32)}
    for _ in range(2):
        assert scene.client.predict(ALIAS, storm, deadline_s=20.0).version == "1.1.0"

    event = heard.get()

    assert (event["outcome"], event["version"], event["psi"] > 0.2) == ("held", "1.1.0", True)
    assert event["psiOf"].startswith("conditions[")
    row = scene.row()
    assert (row["serving"], row["desired"], row["held_by"], row["state"]) == ("1.0.0", "1.1.0", "drift", "held")
    status = statuses.get()
    while status["state"] != "held":
        status = statuses.get()
    assert (status["serving"], status["desired"], status["heldBy"]) == ("1.0.0", "1.1.0", "drift")
    assert "population stability index" in status["reason"]
    process.kill()
    process.wait(parts.WAIT_S)
    scene.start()
    assert scene.client.predict(ALIAS, storm, deadline_s=20.0).version == "1.0.0"
    assert scene.row()["held_by"] == "drift"


def test_status_when_versions_come_and_go_then_each_change_is_told_once(scene: Scene) -> None:
    heard = scene.nucleus.subscribe(f"{TOPIC}/status")
    scene.start()
    scene.offer("1.0.0")
    first = heard.get()
    scene.offer("1.1.0")
    second = heard.get()
    assert scene.device.hand_over("withdraw", "1.1.0").returncode == 0
    last = heard.get()

    assert [(one["serving"], one["previous"], one["state"]) for one in (first, second, last)] == [
        ("1.0.0", "", "serving"),
        ("1.1.0", "1.0.0", "serving"),
        ("", "", "empty"),
    ]
    topic = f"marram/things/test-thing/models/{ALIAS}/status"
    scene.nucleus.until(lambda: [one[0] for one in list(scene.nucleus.iot_core.published)].count(topic) == 3, "all")


@pytest.mark.parametrize(("before", "state"), [(None, "serving"), ("held", "held")])
def test_status_when_a_model_leaves_the_memory_for_a_while_then_that_is_no_news(before: str | None, state: str) -> None:
    row = {
        "component": "c",
        "serving": "1",
        "desired": "2",
        "previous": "",
        "candidate": "",
        "held_by": "",
        "reason": "",
    }

    found = agent_status.told({**row, "state": "evicted"}, {"serving": "1", "state": before} if before else None)

    assert found["state"] == state


# ---- pure ----------------------------------------------------------------------------------------------------------------


def test_interval_when_counting_began_anew_then_all_of_it() -> None:
    before = agent_metrics.totals(None) | {"count": 10}
    now = agent_metrics.totals(None) | {"count": 4, "computedMs": 2.5}

    assert agent_metrics.since(before, now) == now
    assert agent_metrics.since(None, now) == now
    assert agent_metrics.since(now, now | {"count": 9, "computedMs": 4.0})["computedMs"] == 1.5


@pytest.mark.parametrize("given", [{"localSeconds": "10"}, {"cloudSeconds": True}, {"cloudSeconds": 1e9}], ids=str)
def test_metrics_settings_when_they_mean_nothing_then_refused_with_the_key(given: dict[str, Any]) -> None:
    with pytest.raises(agent_settings.SettingsError, match=next(iter(given))):
        agent_metrics.read(given)
