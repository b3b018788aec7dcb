"""Trials of a new model version beside the old one, with a real agent and real models."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent_aliases
import agent_engine
import agent_gate
import agent_registry
import agent_settings
import agent_trial
import agent_trial_rules
import agent_trials
import numpy as np
import pytest

from tests.components import doubling, parts

TERMS = {"mode": "shadow", "measure": "close", "tolerance": 0.01, "minimum": 0.8, "minimumSamples": 20, "cpuShare": 1}
ENDLESS = {**TERMS, "minimumSamples": 1_000_000}


@pytest.fixture
def scene(device: parts.Device) -> Any:
    made = doubling.Scene(device)
    yield made
    made.close()


def test_shadow_when_candidate_agrees_then_promoted_and_it_answers(scene: doubling.Scene) -> None:
    done = scene.offer("2.0.0", scene.model("2.0.0"), trial=TERMS)
    assert done.returncode == 0, done.stderr
    assert f"2.0.0 was accepted for a shadow trial; {doubling.ALIAS} answers with 1.0.0" in done.stdout
    assert (scene.row()["state"], scene.row()["serving"], scene.row()["desired"]) == ("trial", "1.0.0", "2.0.0")

    found = scene.ended()

    assert (found["outcome"], found["version"], found["code"]) == ("promoted", "2.0.0", "")
    assert found["agreed"] == found["samples"] >= 20
    assert found["low"] >= 0.8
    assert (scene.row()["state"], scene.row()["serving"], scene.row()["previous"]) == ("serving", "2.0.0", "1.0.0")
    assert scene.ask() == {"2.0.0": 1}


def test_shadow_when_candidate_disagrees_then_refused_with_figures_and_for_good(scene: doubling.Scene) -> None:
    bad = scene.model("2.0.0", wrong=60)
    scene.offer("2.0.0", bad, trial=TERMS)

    found = scene.ended()

    assert (found["outcome"], found["code"]) == ("refused", "TRIAL_DISAGREES")
    assert f"{found['agreed']} of {found['samples']} answers agree by close" in found["reason"]
    assert found["high"] < 0.8
    assert scene.ask(3) == {"1.0.0": 3}
    assert scene.row()["reason"].startswith("TRIAL_DISAGREES: ")
    again = scene.offer("2.0.0", bad, trial=TERMS)  # its component starts again: that is no news
    assert (again.returncode, "was tried: TRIAL_DISAGREES" in again.stdout) == (0, True)
    scene.offer("1.0.0", scene.device.root / "offered-1.0.0")
    anew = scene.offer("2.0.0", bad, trial=TERMS)  # it is deployed anew: the verdict stands
    assert anew.returncode == 1
    assert "answers agree by close" in anew.stderr
    assert "(decided earlier)" in anew.stderr


def test_shadow_when_agent_is_killed_then_counts_and_time_go_on_and_no_sample_counts_twice(
    scene: doubling.Scene,
) -> None:
    scene.offer("2.0.0", scene.model("2.0.0", wrong=5), trial=ENDLESS)
    scene.begun()
    file = scene.device.work("marram.ModelAgent") / "registry/trials.json"

    def kept() -> Any:
        scene.ask(10)
        counts = json.loads(file.read_bytes())["trials"][0]["counts"]
        return counts if counts["agreed"] >= 50 and counts["disagreed"] else None

    before = parts.until(kept, "the counts to be kept")
    scene.agent.send_signal(signal.SIGKILL)
    scene.agent.wait(parts.WAIT_S)
    scene.device.start_agent()
    scene.begun()
    after = scene.trials()[0]

    assert (after["outcome"], after["version"]) == ("running", "2.0.0")
    for name in ("agreed", "disagreed"):
        assert after[name] >= before[name]
    assert after["elapsedSeconds"] >= round(before["elapsed_s"], 1)
    parts.until(lambda: scene.ask(10) and scene.trials()[0]["samples"] > after["samples"], "new samples")
    assert scene.trials()[0]["samples"] <= scene.asked
    assert f"trial: shadow of {doubling.ALIAS} goes on with 2.0.0" in scene.device.log("marram.ModelAgent")


def test_canary_when_it_runs_then_its_share_answers_and_each_says_its_version(scene: doubling.Scene) -> None:
    terms = {**ENDLESS, "mode": "canary", "share": 0.25}
    scene.offer("2.0.0", scene.model("2.0.0", wrong=5), trial=terms)
    scene.begun()

    versions = scene.ask(400)

    assert 60 <= versions["2.0.0"] <= 140
    assert versions["1.0.0"] == 400 - versions["2.0.0"]
    compared = parts.until(lambda: [t for t in scene.trials() if t["samples"] + t["dropped"] >= versions["2.0.0"]])
    assert compared[0]["samples"] + compared[0]["dropped"] == versions["2.0.0"]


def test_canary_when_candidate_fails_then_the_old_one_answers_and_it_counts(scene: doubling.Scene) -> None:
    terms = {**TERMS, "mode": "canary", "share": 1.0}
    scene.offer("2.0.0", scene.model("2.0.0", length=10), trial=terms)
    scene.begun()

    found = scene.ended()

    assert (found["outcome"], found["code"]) == ("refused", "TRIAL_DISAGREES")
    assert found["errors"] > 0
    assert scene.ask(3) == {"1.0.0": 3}


def test_shadow_when_candidate_is_slow_then_requests_are_answered_without_it(scene: doubling.Scene) -> None:
    scene.offer("2.0.0", scene.model("2.0.0", work=60), trial=ENDLESS)
    scene.begun()

    scene.ask(500)

    one = scene.trials()[0]
    assert one["dropped"] > 0  # more came than it could compute, and nobody waited for that
    assert one["samples"] + one["dropped"] <= 500
    assert parts.until(lambda: scene.trials()[0]["samples"] > 0)


def test_shadow_when_answers_differ_then_only_those_inputs_are_captured(device: parts.Device) -> None:
    scene = doubling.Scene(device, capture={"disagreement": True, "perMinute": 100_000})
    scene.offer("2.0.0", scene.model("2.0.0", wrong=10), trial=ENDLESS)
    scene.begun()

    def captured() -> set[float]:
        lines = [
            json.loads(line)
            for file in (device.work("marram.ModelAgent") / "samples").rglob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
        assert {line["eventMetadata"]["reason"] for line in lines} <= {"disagreement"}
        tensors = [line["deviceFleetInputs"][0] for line in lines]
        return {float(np.frombuffer(embedded(each), "<f4")[0]) for each in tensors}

    def enough() -> bool:
        scene.ask(doubling.TABLE)
        return len(captured()) == 10

    parts.until(enough, "every disagreeing input to be captured")
    assert captured() == {float(x) for x in range(1, 11)}
    scene.close()


def embedded(item: dict[str, Any]) -> bytes:
    """The bytes of an embedded tensor."""
    return base64.b64decode(item["data"])


def test_offer_when_terms_of_the_trial_mean_nothing_then_refused_by_name(scene: doubling.Scene) -> None:
    done = scene.offer("2.0.0", scene.model("2.0.0"), trial={"mode": "shadow", "minimum": 1.5})

    assert (done.returncode, "trial.minimum is 1.5" in done.stderr) == (1, True)
    assert scene.row()["serving"] == "1.0.0"


def rewrite(scene: doubling.Scene, **values: Any) -> None:
    """Kills the agent and changes what it wrote about its only trial, as if it had died at another moment."""
    scene.agent.send_signal(signal.SIGKILL)
    scene.agent.wait(parts.WAIT_S)
    file = scene.device.work("marram.ModelAgent") / "registry/trials.json"
    content = json.loads(file.read_bytes())
    content["trials"][0].update(values)
    file.write_text(json.dumps(content))
    scene.agent = scene.device.start_agent()


@pytest.mark.parametrize(
    ("outcome", "code", "serving"), [("promoted", "", "2.0.0"), ("refused", "TRIAL_DISAGREES", "1.0.0")]
)
def test_end_when_agent_died_between_deciding_and_acting_then_the_next_one_acts(
    scene: doubling.Scene, outcome: str, code: str, serving: str
) -> None:
    folder = scene.model("2.0.0")
    scene.offer("2.0.0", folder, trial=ENDLESS)
    scene.begun()

    rewrite(scene, outcome=outcome, code=code, reason="1 of 1 answers")
    found = scene.ended()

    assert (found["outcome"], found["code"]) == (outcome, code)
    assert scene.ask() == {serving: 1}
    assert scene.row()["candidate"] == ""
    if code:
        scene.offer("1.0.0", scene.device.root / "offered-1.0.0")
        assert "1 of 1 answers (decided earlier)" in scene.offer("2.0.0", folder, trial=ENDLESS).stderr


def test_end_when_agent_died_after_acting_then_nothing_is_done_twice(scene: doubling.Scene) -> None:
    scene.offer("2.0.0", scene.model("2.0.0"), trial=TERMS)
    scene.ended()

    rewrite(scene, acted=False)
    found = scene.ended()

    assert (found["outcome"], len(scene.trials())) == ("promoted", 1)
    assert (scene.row()["serving"], scene.row()["previous"]) == ("2.0.0", "1.0.0")


def test_trials_when_their_file_is_damaged_then_put_aside_and_the_trial_begins_anew(scene: doubling.Scene) -> None:
    scene.offer("2.0.0", scene.model("2.0.0"), trial=ENDLESS)
    scene.begun()
    scene.agent.send_signal(signal.SIGKILL)
    scene.agent.wait(parts.WAIT_S)
    file = scene.device.work("marram.ModelAgent") / "registry/trials.json"
    file.write_text(file.read_text()[:-9])

    scene.device.start_agent()
    scene.begun()

    assert scene.trials()[0]["outcome"] == "running"
    assert file.with_name("trials.json.unreadable").exists()
    parts.until(
        lambda: "kept as trials.json.unreadable" in scene.device.log("marram.ModelAgent"), "the line in the log"
    )


def test_trial_when_another_release_of_the_agent_knows_its_terms_then_told_and_over_with_the_next_version(
    scene: doubling.Scene,
) -> None:
    scene.offer("2.0.0", scene.model("2.0.0"), trial=ENDLESS)
    scene.begun()
    scene.agent.send_signal(signal.SIGKILL)
    scene.agent.wait(parts.WAIT_S)
    for name in ("trials.json", "registry.json"):
        file = scene.device.work("marram.ModelAgent") / "registry" / name
        file.write_text(file.read_text().replace(r"\"mode\":\"shadow\"", r"\"mode\":\"mirror\""))
    scene.agent = scene.device.start_agent()
    said = "cannot begin: settings: trial.mode is 'mirror'"
    parts.until(lambda: said in scene.device.log("marram.ModelAgent"), "the line in the log")
    assert (scene.trials()[0]["outcome"], scene.ask()) == ("running", {"1.0.0": 1})

    scene.offer("3.0.0", scene.model("3.0.0"))

    assert scene.ended()["outcome"] == "superseded"
    assert (scene.ask(), scene.agent.poll()) == ({"3.0.0": 1}, None)


class Recorder:
    """A reporter that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Mapping[str, Any]]] = []

    def publish(
        self, alias: str, kind: str, fields: Mapping[str, Any], *, local: bool = True, cloud: bool = True
    ) -> None:
        self.told.append((alias, kind, fields))

    def counts(self) -> dict[str, int]:
        return {}

    def close(self, within_s: float = 1.0) -> None:
        pass


class Inside:
    """Aliases, engine and trials in this process; 1.0.0 serves, and 2.0.0, wrong about so many numbers, is tried."""

    def __init__(self, root: Path, wrong: int = 0) -> None:
        self.registry = agent_registry.Registry.open(root / "registry")
        self.aliases, self.recorder = agent_aliases.Aliases(self.registry, 0), Recorder()
        self.engine = agent_engine.Engine(self.aliases.serving)
        self.trials = agent_trials.Trials(self.aliases, self.recorder)
        self.engine.observers.append(self.trials.observe)
        self.settings = agent_settings.read({"trial": TERMS})
        self.root, self.folder, self.file = root, root / "2.0.0", root / "registry/trials.json"
        self.offer("1.0.0", self.settings)
        self.offer("2.0.0", self.settings, wrong)

    def offer(self, version: str, settings: agent_settings.Settings, wrong: int = 0) -> None:
        values = [2.0 * x + (0 < x <= wrong) for x in range(100)]
        self.aliases.offer("c", version, doubling.table(self.root / version, version, values), settings)

    def serving(self) -> str:
        found = self.aliases.serving(doubling.ALIAS)
        return found.version if found is not None else ""

    def go_on(self) -> None:
        """A turn of the service and some requests."""
        self.trials.tick()
        for x in range(1, 91, 9):
            self.engine.predict(doubling.ALIAS, {"x": np.array([x], np.float32)}, time.monotonic() + 20)

    def told(self) -> Any:
        self.go_on()
        return self.recorder.told

    def decided(self) -> bool:
        self.go_on()
        return bool(json.loads(self.file.read_bytes())["trials"][0]["outcome"] != "running")


@pytest.fixture
def inside(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Inside]:
    made = Inside(tmp_path, getattr(request, "param", 0))
    yield made
    made.trials.close()
    made.registry.close()


@pytest.mark.parametrize(("inside", "outcome"), [(0, "promoted"), (90, "refused")], indirect=["inside"])
def test_end_when_a_trial_is_over_then_it_is_reported_once_with_its_figures(inside: Inside, outcome: str) -> None:
    parts.until(inside.told, "the report")
    inside.go_on()

    assert len(inside.recorder.told) == 1
    alias, kind, fields = inside.recorder.told[0]
    assert (alias, kind, fields["outcome"], fields["version"]) == (doubling.ALIAS, "trial", outcome, "2.0.0")
    assert fields["samples"] >= 20
    assert fields["low"] <= fields["agreement"] <= fields["high"]
    digest = agent_registry.digest(*((inside.folder / name).read_bytes() for name in ("model.json", "table.onnx")))
    verdicts = inside.aliases.gate.admission.verdicts
    verdict = verdicts.find(digest, agent_gate.RUNTIME, agent_settings.text(inside.settings))
    assert verdict is not None
    assert verdict.accepted is (outcome == "promoted")


@pytest.mark.parametrize(
    ("undecided", "outcome", "code", "serving"),
    [("refuse", "refused", "UNDECIDED", "1.0.0"), ("promote", "promoted", "", "3.0.0")],
)
def test_trial_when_time_is_over_without_samples_then_as_declared(
    inside: Inside, undecided: str, outcome: str, code: str, serving: str
) -> None:
    inside.trials.tick()
    terms = {**TERMS, "maxSeconds": 0.5, "undecided": undecided}
    inside.offer("3.0.0", agent_settings.read({"trial": terms}))

    def told() -> Any:
        inside.trials.tick()
        return [fields for _, _, fields in inside.recorder.told if fields["version"] == "3.0.0"]

    fields = parts.until(told, "the report")[0]

    assert (fields["outcome"], fields["code"], fields["samples"]) == (outcome, code, 0)
    assert inside.serving() == serving


class Meanwhile:
    """A candidate that agrees, and does something before it says so."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do
        self.manifest = SimpleNamespace(session=SimpleNamespace(threads=1))

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.do()
        return inputs


@pytest.mark.parametrize("stopped", [False, True])
def test_trial_when_it_is_stopped_while_the_candidate_computes_then_it_decides_nothing_any_more(stopped: bool) -> None:
    terms = agent_trial_rules.read({**TERMS, "minimum": 0.01, "confidence": 0.5, "minimumSamples": 1})
    assert terms is not None
    ends: list[agent_trial_rules.End] = []
    model = Meanwhile(lambda: trial.stop() if stopped else None)
    candidate = SimpleNamespace(model=model, settings=agent_settings.DEFAULT)
    trial = agent_trial.Trial("a", candidate, terms, agent_trial_rules.Counts(), lambda alias: None)
    trial.ended = lambda _, end: ends.append(end)
    answer = agent_engine.Answer({"y": np.zeros(1)}, "c", "1.0.0", 0.0, 1.0)
    trial.start()

    trial.observe(agent_engine.Observation("a", {"y": np.zeros(1)}, answer, SimpleNamespace(model=None)))

    parts.until(lambda: trial.counts().agreed == 1, "the sample to count")
    if not stopped:
        parts.until(lambda: ends, "the end")
    trial.stop()
    assert len(ends) == (not stopped)


def test_trial_when_another_version_is_offered_then_superseded_and_the_new_one_is_tried(inside: Inside) -> None:
    inside.trials.tick()
    inside.offer("3.0.0", agent_settings.read({"trial": ENDLESS}), 1)

    parts.until(inside.told, "the report")

    assert [fields["outcome"] for _, _, fields in inside.recorder.told] == ["superseded"]
    assert [(each["version"], each["outcome"]) for each in inside.trials.listed()] == [
        ("3.0.0", "running"),
        ("2.0.0", "superseded"),
    ]
    assert inside.serving() == "1.0.0"


class Dropping(Recorder):
    """Drops the candidate when it is told of the first trial."""

    def __init__(self, aliases: agent_aliases.Aliases) -> None:
        super().__init__()
        self._aliases = aliases

    def publish(self, alias: str, kind: str, fields: Mapping[str, Any], **more: bool) -> None:
        super().publish(alias, kind, fields)
        if len(self.told) == 1:
            self._aliases.drop_candidate(doubling.ALIAS, "OTHERWISE", "it was decided")


def test_candidate_when_it_is_gone_while_others_get_their_turn_then_no_trial_of_it_begins(inside: Inside) -> None:
    inside.trials.tick()
    inside.trials.close()
    known = json.loads(inside.file.read_bytes())["trials"][0]
    gone = [{**known, "alias": f"gone{number}"} for number in range(3)]  # in order of their names: before it
    inside.file.write_text(json.dumps({"trials": gone}))
    recorder = Dropping(inside.aliases)

    trials = agent_trials.Trials(inside.aliases, recorder)
    trials.tick()
    trials.tick()
    trials.close()

    assert len(recorder.told) == len(gone)
    assert trials.listed(doubling.ALIAS) == []


def test_shadow_when_slower_than_declared_then_it_counts_against_it(inside: Inside) -> None:
    inside.trials.tick()
    terms = {**TERMS, "slowestMs": 1e-6, "minimumSamples": 10}
    inside.offer("3.0.0", agent_settings.read({"trial": terms}))

    parts.until(lambda: len(inside.told()) == 2, "both reports")

    fields = inside.recorder.told[1][2]
    assert (fields["outcome"], fields["code"]) == ("refused", "TRIAL_DISAGREES")
    assert fields["slow"] == fields["samples"] > 0


def test_end_when_another_agent_is_taking_over_then_it_waits_and_is_acted_on_afterwards(inside: Inside) -> None:
    assert inside.registry.changes.freeze(5)
    parts.until(inside.decided, "the trial to be decided")
    inside.go_on()

    assert (inside.serving(), inside.recorder.told) == ("1.0.0", [])
    inside.registry.changes.thaw()
    parts.until(inside.told, "the report")

    assert inside.serving() == "2.0.0"


def test_shadow_when_candidate_runs_in_a_process_of_its_own_then_tried_like_any_other(scene: doubling.Scene) -> None:
    done = scene.offer("2.0.0", scene.model("2.0.0"), trial=TERMS, isolated=True)
    assert "accepted for a shadow trial" in done.stdout, done.stderr

    found = scene.ended()

    assert (found["outcome"], found["agreed"] >= 20) == ("promoted", True)
    assert scene.ask() == {"2.0.0": 1}
    assert scene.row()["process"]["state"] == "serving"


def test_trial_when_another_agent_takes_over_then_it_goes_on_there_with_its_counts(scene: doubling.Scene) -> None:
    scene.offer("2.0.0", scene.model("2.0.0", wrong=5), trial=ENDLESS)
    scene.begun()
    parts.until(lambda: scene.ask(10) and scene.trials()[0]["samples"] >= 30, "samples")
    before = scene.trials()[0]

    scene.device.start_agent()
    scene.agent.wait(parts.WAIT_S)
    scene.begun()
    after = scene.trials()[0]

    assert (after["outcome"], after["samples"] >= before["samples"]) == ("running", True)
    assert after["elapsedSeconds"] >= before["elapsedSeconds"]
    parts.until(lambda: scene.ask(10) and scene.trials()[0]["samples"] > after["samples"], "new samples")
    assert scene.trials()[0]["samples"] <= scene.asked
