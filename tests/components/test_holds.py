"""Holds, candidates and owners: what was decided about an alias stays, over restarts and kills, until something ends it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_entry
import agent_guard
import agent_registry
import agent_settings
import numpy as np
import pytest

from tests.components import models, parts

C = "com.example.Small"
INPUTS = {"x": np.ones((1, 64), np.float32)}
TRIAL = agent_settings.Settings(trial={"mode": "shadow"})


class Agent:
    """The table and the models of an agent, without its doors; `restart` is what a new process sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.megabytes = 0.1
        self.start()

    def start(self, memory_bytes: int = 0) -> None:
        self._registry = agent_registry.Registry.open(self.folder / "store")
        self.aliases = agent_aliases.Aliases(self._registry, 600, memory_bytes=memory_bytes)
        self.restored = self.aliases.restore()

    def restart(self, memory_bytes: int = 0) -> None:
        self.close()
        self.start(memory_bytes)

    def close(self) -> None:
        self._registry.close()

    def model(self, number: int) -> Path:
        folder = self.folder / f"small-{number}"
        return folder if folder.exists() else models.weighty(folder, "small", number, self.megabytes)

    def offer(self, number: int, settings: agent_settings.Settings = agent_settings.DEFAULT, **more: Any) -> str:
        component = more.pop("component", C)
        return self.aliases.offer(component, f"{number}.0.0", self.model(number), settings, **more)

    def entry(self) -> agent_entry.Entry:
        return self._registry.aliases["small"]

    def row(self, place: int = 0) -> dict[str, Any]:
        return self.aliases.listed()[place]

    def seen(self) -> tuple[str, str, str, str]:
        """State, the version that should answer and the one that does, and what an answer says."""
        serving = self.aliases.serving("small")
        assert serving is not None
        answered = f"{serving.model.predict(INPUTS)['y'][0]:.1f}.0"
        assert answered == serving.version
        return self.row()["state"], self.row()["desired"], self.row()["serving"], answered


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


@pytest.fixture
def held(agent: Agent) -> Agent:
    """2.0.0 gave way to 1.0.0."""
    agent.offer(1)
    agent.offer(2)
    agent.aliases.hold("small", "drift", "psi of x is 0.40")
    return agent


@contextlib.contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[agent_check.RefusedError]]:
    with pytest.raises(agent_check.RefusedError) as caught:
        yield caught
    assert caught.value.code == code


def test_hold_then_the_version_before_answers_and_the_list_says_who_and_why(held: Agent) -> None:
    row = held.row()

    assert held.seen() == ("held", "2.0.0", "1.0.0", "1.0.0")
    assert (row["held_by"], row["reason"], row["previous"]) == ("drift", "psi of x is 0.40", "")


def test_hold_when_the_device_restarts_and_the_component_offers_again_then_it_stays(held: Agent) -> None:
    held.restart()

    line = held.offer(2)

    assert line == f"{C} 2.0.0 is held back by drift (psi of x is 0.40); small answers with 1.0.0"
    assert held.seen() == ("held", "2.0.0", "1.0.0", "1.0.0")


def test_hold_when_a_newer_version_is_offered_then_it_is_over(held: Agent) -> None:
    held.offer(3)

    assert held.seen() == ("serving", "3.0.0", "3.0.0", "3.0.0")
    assert (held.row()["held_by"], held.row()["previous"]) == ("", "1.0.0")


def test_hold_when_a_newer_version_is_refused_then_it_stays(held: Agent) -> None:
    bad = models.weighty(held.folder / "bad", "small", 4, 0.1)
    described = json.loads((bad / "model.json").read_text())
    described["golden"]["samples"][0]["outputs"]["y"] = [5]
    (bad / "model.json").write_text(json.dumps(described))

    with refused("GOLDEN_MISMATCH"):
        held.aliases.offer(C, "4.0.0", bad)

    assert held.seen() == ("held", "4.0.0", "1.0.0", "1.0.0")
    assert "psi of x is 0.40; GOLDEN_MISMATCH: golden sample" in held.row()["reason"]


def test_release_hold_then_what_was_held_back_answers_and_a_restart_does_not_change_that(held: Agent) -> None:
    assert held.aliases.release_hold("small") == "small is held no more; it answers with 2.0.0"
    held.restart()

    assert held.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert held.row()["previous"] == "1.0.0"


def test_hold_when_there_is_no_version_before_then_refused(agent: Agent) -> None:
    agent.offer(1)

    with refused("NO_PREVIOUS"):
        agent.aliases.hold("small", "drift", "psi")

    assert agent.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")


def test_hold_when_the_copy_of_the_version_before_is_damaged_then_refused_and_nothing_changes(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2)
    previous = agent.entry().previous
    assert previous is not None
    assert previous.version == "1.0.0"
    (agent.folder / "store/models" / previous.key / "weighty.onnx").write_bytes(b"")

    with refused("COPY_DAMAGED"):
        agent.aliases.hold("small", "drift", "psi")

    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert agent.entry().previous is None


def test_hold_when_there_is_no_room_for_the_version_before_then_it_comes_at_the_next_request(agent: Agent) -> None:
    agent.megabytes = 3
    agent.offer(1)
    agent.offer(2)
    pinned = models.weighty(agent.folder / "large", "large", 1, 6)
    agent.aliases.offer("com.example.Large", "1.0.0", pinned, agent_settings.Settings(pinned=True))
    agent.restart(memory_bytes=8_000_000)  # the large one alone
    before = (agent.row()["memory_bytes"] > 0, agent.row(1)["state"])

    agent.aliases.hold("small", "drift", "psi")

    assert (before, agent.row(1)["state"], agent.row(1)["held_by"]) == ((True, "evicted"), "evicted", "drift")
    assert agent.aliases.wake("small", time.monotonic()).startswith("no memory for small 1.0.0")
    agent.aliases.withdraw("com.example.Large", "1.0.0")
    assert agent.aliases.wake("small", time.monotonic() + parts.WAIT_S) == ""
    assert agent.seen() == ("held", "2.0.0", "1.0.0", "1.0.0")


def test_wake_when_there_is_no_descriptor_to_read_the_copy_then_it_is_not_taken_for_damaged(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2)
    serving = agent.aliases.serving("small")
    assert serving is not None
    assert serving.model.drain(parts.WAIT_S)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)

    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        said = agent.aliases.wake("small", time.monotonic())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert "Too many open files" in said
    assert (agent.row()["serving"], agent.row()["reason"]) == ("2.0.0", "")
    assert agent.aliases.wake("small", time.monotonic() + parts.WAIT_S) == ""
    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")


def test_release_hold_when_nothing_is_held_then_refused(agent: Agent) -> None:
    agent.offer(1)
    with refused("FAILED_PRECONDITION"):
        agent.aliases.release_hold("small")
    with refused("NOT_FOUND"):
        agent.aliases.release_hold("other")


def test_trial_when_offered_then_the_candidate_is_loaded_beside_what_answers(agent: Agent) -> None:
    agent.offer(1)

    line = agent.offer(2, TRIAL)

    candidate = agent.aliases.candidate("small")
    assert candidate is not None
    assert f"{C} 2.0.0 was accepted for a shadow trial; small answers with 1.0.0" in line
    assert (candidate.version, candidate.model.predict(INPUTS)["y"].round(3)) == ("2.0.0", [2.0])
    assert agent.seen() == ("trial", "2.0.0", "1.0.0", "1.0.0")


def test_trial_when_what_serves_is_offered_to_run_in_another_way_then_exchanged_and_not_tried_against_itself(
    agent: Agent,
) -> None:
    agent.offer(1)
    agent.offer(2)

    said = agent.offer(2, agent_settings.Settings(trial={"mode": "shadow"}, hang_s=2.0))

    assert said.startswith(f"small now answers with {C} 2.0.0")
    assert (agent.seen(), agent.row()["previous"]) == (("serving", "2.0.0", "2.0.0", "2.0.0"), "1.0.0")


def test_trial_when_nothing_answers_yet_then_the_model_serves_at_once(agent: Agent) -> None:
    agent.offer(1, TRIAL)

    assert agent.aliases.candidate("small") is None
    assert agent.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")


def test_trial_when_the_agent_restarts_then_the_candidate_is_loaded_again_and_offered_again_it_goes_on(
    agent: Agent,
) -> None:
    agent.offer(1)
    agent.offer(2, TRIAL)

    agent.restart()
    line = agent.offer(2, TRIAL)

    candidate = agent.aliases.candidate("small")
    assert candidate is not None
    assert (candidate.version, candidate.settings.trial["mode"]) == ("2.0.0", "shadow")
    assert agent.restored == [f"small answers with {C} 1.0.0, 2.0.0 is being tried"]
    assert line == f"{C} 2.0.0 is being tried; small answers with 1.0.0"


def test_trial_when_there_is_no_room_at_a_restart_then_what_answered_does_and_the_trial_goes_on(agent: Agent) -> None:
    agent.megabytes = 3
    weighty = models.weighty(agent.folder / "weighty", "weighty", 1, 6)
    agent.aliases.offer("com.example.Weighty", "1.0.0", weighty)  # known first, so in memory first
    agent.offer(1)
    agent.offer(2, TRIAL)

    agent.restart(memory_bytes=9_000_000)

    assert agent.aliases.wake("small", time.monotonic() + parts.WAIT_S) == ""
    assert agent.seen() == ("trial", "2.0.0", "1.0.0", "1.0.0")
    assert agent.aliases.candidate("small") is not None


def test_trial_when_promoted_then_it_answers_also_after_a_restart(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2, TRIAL)

    agent.aliases.promote("small", "100 of 100 agree")
    agent.restart()

    assert agent.aliases.candidate("small") is None
    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert agent.row()["previous"] == "1.0.0"


def test_trial_when_dropped_then_the_old_answers_and_the_same_offer_is_answered_at_once(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2, TRIAL)
    tried = agent.aliases.candidate("small")
    assert tried is not None

    agent.aliases.drop_candidate("small", "TRIAL_DISAGREES", "7 of 10")
    agent.restart()
    line = agent.offer(2, TRIAL)

    with pytest.raises(agent_guard.GoneError):
        tried.model.predict(INPUTS)
    assert line == f"small stays with 1.0.0; {C} 2.0.0 was tried: TRIAL_DISAGREES: 7 of 10"
    assert agent.seen() == ("serving", "2.0.0", "1.0.0", "1.0.0")
    assert agent.row()["reason"] == "TRIAL_DISAGREES: 7 of 10"


def test_trial_when_hold_is_asked_for_then_it_has_to_end_first(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2)
    agent.offer(3, TRIAL)

    with refused("FAILED_PRECONDITION") as caught:
        agent.aliases.hold("small", "drift", "psi")

    assert "a trial is running, end it first" in str(caught.value)
    assert agent.seen() == ("trial", "3.0.0", "2.0.0", "2.0.0")


def test_trial_when_the_agent_is_killed_then_a_new_one_goes_on_with_it(device: parts.Device, tmp_path: Path) -> None:
    process = device.start_agent()
    for number, trial in ((1, {}), (2, {"mode": "shadow"})):
        folder = models.weighty(tmp_path / str(number), "small", number, 0.1)
        header = {"op": "offer", "component": C, "version": f"{number}.0.0", "artifacts": str(folder)}
        assert parts.ask(device, header | {"settings": {"trial": trial}})["ok"] is True
    process.send_signal(signal.SIGKILL)
    process.wait(parts.WAIT_S)

    device.start_agent()

    row = parts.serving(device)[0]
    assert (row["state"], row["serving"], row["candidate"]) == ("trial", "1.0.0", "2.0.0")
    assert "1.0.0, 2.0.0 is being tried" in device.log("marram.ModelAgent")


def test_offer_when_a_bundle_brought_the_model_then_a_deployment_is_told_whose_it_is(agent: Agent) -> None:
    agent.offer(1, owner=agent_entry.BUNDLE)

    with refused("FAILED_PRECONDITION") as caught:
        agent.offer(2)

    assert f"the alias small belongs to {C} (bundle); apply a newer bundle" in str(caught.value)
    assert agent.aliases.withdraw(C, "1.0.0") == f"{C} 1.0.0 serves nothing here"
    assert agent.row()["owner"] == "bundle"
    assert agent.aliases.withdraw(C, "1.0.0", owner=agent_entry.BUNDLE).endswith("small answers no more")


def test_offer_when_a_door_loaded_the_model_then_a_deployment_is_told_whose_it_is(agent: Agent) -> None:
    agent.aliases.load("door:edge-manager", "small", agent.model(1))

    with refused("FAILED_PRECONDITION") as caught:
        agent.offer(2)
    with refused("FAILED_PRECONDITION"):
        agent.aliases.load("marram:repository", "small", agent.model(2))

    assert "the alias small belongs to door:edge-manager (local); unload it there first" in str(caught.value)


def test_registry_when_the_release_before_wrote_it_then_it_is_read(agent: Agent) -> None:
    agent.offer(1)
    agent.offer(2)
    file = agent.folder / "store/registry.json"
    entry = json.loads(file.read_text())["aliases"]["small"]
    known = ("component", "offered", "released", "source")
    old = {name: entry[name] for name in known}
    old |= {name: {key: entry[name][key] for key in ("version", "key")} for name in ("serving", "previous")}
    file.write_text(json.dumps({"aliases": {"small": old}}))

    agent.restart()

    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert (agent.row()["owner"], agent.row()["source"]) == ("deployment", str(agent.model(2)))
    agent.aliases.hold("small", "me", "")
    assert agent.seen() == ("held", "2.0.0", "1.0.0", "1.0.0")


class Slow:
    """A model that computes until it is let go."""

    def __init__(self) -> None:
        self.manifest = agent_check.Manifest("slow", "1", "", "", "", (), (), (), 0, 0)
        self.begun, self.go = threading.Event(), threading.Event()
        self.closed = 0

    def predict(self, _: Any) -> dict[str, Any]:
        self.begun.set()
        assert self.go.wait(parts.WAIT_S)
        return {"y": 1}

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def slow() -> Iterator[tuple[Slow, agent_guard.Guard, list[Any], threading.Thread]]:
    """A guarded model with a request under way, and where its answer will be."""
    model, answers = Slow(), list[Any]()
    guard = agent_guard.Guard(model)
    thread = threading.Thread(target=lambda: answers.append(guard.predict({})))
    thread.start()
    assert model.begun.wait(parts.WAIT_S)
    yield model, guard, answers, thread
    model.go.set()
    thread.join(parts.WAIT_S)


def test_retire_when_a_request_is_under_way_then_it_finishes_and_the_model_is_let_go_after_it(slow: Any) -> None:
    model, guard, answers, thread = slow

    guard.retire()
    with pytest.raises(agent_guard.GoneError):
        guard.predict({})
    before = (guard.gone, model.closed)
    model.go.set()
    thread.join(parts.WAIT_S)

    assert (before, guard.gone, model.closed, answers) == ((False, 0), True, 1, [{"y": 1}])


def test_drain_when_a_request_takes_too_long_then_the_model_stays_and_answers_again(slow: Any) -> None:
    model, guard, answers, thread = slow

    drained = guard.drain(0.01)
    model.go.set()
    thread.join(parts.WAIT_S)

    assert (drained, guard.closed, guard.predict({}), model.closed) == (False, False, {"y": 1}, 0)
    assert guard.drain(time.monotonic()) is True
    assert answers == [{"y": 1}]
