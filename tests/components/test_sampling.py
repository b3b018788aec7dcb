"""Sampling of captures: the rules, what they cost and keep, and what SIGKILL leaves."""

from __future__ import annotations

import base64
import json
import math
import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent_capture_store
import agent_captures
import agent_engine
import agent_intake
import agent_sampling
import agent_settings
import numpy as np
import pytest

from tests.components import parts

SEED = 20261124
WAIT_S = 20.0
WRITER = Path(__file__).with_name("sampling_writer.py")
NOW = 1_700_000_000.0


# ---- rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.5, 1.0])
def test_rate_when_many_requests_come_then_that_share_of_them_and_the_same_again(rate: float) -> None:
    count = 50_000
    chosen = [agent_sampling.chosen("crane", number, rate) for number in range(count)]

    assert abs(sum(chosen) - rate * count) <= 4 * math.sqrt(rate * (1 - rate) * count)
    assert chosen == [agent_sampling.chosen("crane", number, rate) for number in range(count)]


@pytest.mark.parametrize("period", [2, 4, 7, 100])
def test_rate_when_the_stream_has_a_period_then_every_phase_is_sampled(period: int) -> None:
    phases = [number % period for number in range(20_000) if agent_sampling.chosen("crane", number, 0.25)]

    counts = np.bincount(phases, minlength=period)
    expected = 5000 / period
    assert np.abs(counts - expected).max() <= 4 * math.sqrt(expected)


def test_rate_when_two_aliases_then_two_samples() -> None:
    first, second = ([agent_sampling.chosen(alias, n, 0.5) for n in range(1000)] for alias in ("a", "b"))

    assert 400 < sum(one != other for one, other in zip(first, second, strict=True)) < 600


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([0.1, 0.7, 0.2], 0.7),
        ([[0.1, 0.7], [0.4, 0.3]], 0.4),
        ([[[0.1], [0.7]], [[0.9], [0.3]]], 0.7),
        (0.3, 0.3),
        ([], -math.inf),
        ([[0.9, 0.1], [math.nan, 0.2]], -math.inf),
    ],
    ids=str,
)
def test_confidence_when_of_any_shape_then_that_of_the_least_sure_item(output: Any, expected: float) -> None:
    assert agent_sampling.confidence(np.array(output, np.float64)) == expected


def test_per_minute_when_the_bound_is_reached_then_nothing_until_the_next_minute() -> None:
    minute = agent_sampling.PerMinute()

    taken = [minute.take(2, NOW + seconds) for seconds in (0, 1, 2, 39, 40, 41, 42)]

    assert taken == [True, True, False, False, True, True, False]  # NOW is 20 s into its minute


@pytest.mark.parametrize(
    "given",
    [
        {"rate": 1.1},
        {"rate": True},
        {"perMinute": -1},
        {"lowConfidence": {"below": 0.5}},
        {"lowConfidence": "scores"},
        {"onRequest": 1},
        {"inputs": False, "outputs": False},
    ],
    ids=str,
)
def test_settings_when_they_mean_nothing_then_refused_with_the_key(given: dict[str, Any]) -> None:
    with pytest.raises(agent_settings.SettingsError, match=next(iter(given))):
        agent_sampling.read(given)


# ---- what is kept --------------------------------------------------------------------------------------------------------


class Answering:
    """An engine whose one model doubles, observed by captures that go to `folder`."""

    def __init__(self, folder: Path, disk_bytes: int = 1 << 22, **capture: Any) -> None:
        settings = agent_settings.Settings(capture=capture)
        model = SimpleNamespace(predict=lambda inputs: {"y": inputs["x"] * 2})
        self.serving: Any = SimpleNamespace(
            model=model, component="c", version="1.0.0", digest="d" * 64, settings=settings
        )
        self.where = agent_capture_store.Where(folder, "default", "crane", disk_bytes)
        self.captures = agent_captures.Captures(self.where, lambda alias: self.serving)
        self.engine = agent_engine.Engine(lambda alias: self.serving)
        self.engine.observers.append(self.captures.observe)

    def ask(self, *numbers: float) -> None:
        for number in numbers:
            self.engine.predict("a", {"x": np.array([[number, 1.0]], np.float32)}, 1e12)

    def kept(self, count: int) -> list[dict[str, Any]]:
        parts.until(lambda: self.captures.figures("a").get("kept", 0) >= count, f"{count} captures")
        return lines(self.where.root)


@pytest.fixture
def answering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Answering]:
    made = Answering(tmp_path / "samples", **request.param)
    yield made
    made.captures.close()


def lines(root: Path) -> list[dict[str, Any]]:
    """All captures, in the order of their numbers; each line must be whole."""
    paths = sorted(root.rglob("*.jsonl"), key=lambda path: int(path.stem))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def array(item: dict[str, Any], folder: Path) -> np.ndarray[Any, Any]:
    dtype, shape = item["observedContentType"].removeprefix("Tensor[").removesuffix("]").split("; ")
    data = (folder / item["file"]).read_bytes() if "file" in item else base64.b64decode(item["data"])
    return np.frombuffer(data, dtype).reshape([int(size) for size in shape.split(", ")])


@pytest.mark.parametrize("answering", [{"rate": 1.0}], indirect=True)
def test_sample_when_a_request_is_chosen_then_inputs_outputs_and_who_answered_are_kept(answering: Answering) -> None:
    answering.ask(3.0)

    (line,) = answering.kept(1)
    assert (
        line["eventMetadata"].items()
        >= {
            "deviceId": "crane",
            "modelName": "a",
            "component": "c",
            "modelVersion": "1.0.0",
            "modelDigest": "d" * 64,
            "reason": "rate",
        }.items()
    )
    ((given,), (answered,)) = line["deviceFleetInputs"], line["deviceFleetOutputs"]
    assert given["observedContentType"] == "Tensor[float32; 1, 2]"
    assert array(given, Path()).tolist() == [[3.0, 1.0]]
    assert array(answered, Path()).tolist() == [[6.0, 2.0]]


@pytest.mark.parametrize("answering", [{"rate": 1.0, "inputs": False}], indirect=True)
def test_sample_when_only_outputs_are_wanted_then_no_inputs_on_disk(answering: Answering) -> None:
    answering.ask(3.0)

    (line,) = answering.kept(1)
    assert line["deviceFleetInputs"] == []
    assert len(line["deviceFleetOutputs"]) == 1


@pytest.mark.parametrize("answering", [{"lowConfidence": {"output": "y", "below": 5.0}}], indirect=True)
def test_low_confidence_when_some_answers_are_unsure_then_those_alone_are_kept(answering: Answering) -> None:
    answering.ask(10.0, 2.0, 11.0, -4.0, 12.0)

    found = answering.kept(2)
    assert [array(line["deviceFleetInputs"][0], Path())[0, 0] for line in found] == [2.0, -4.0]
    assert {line["eventMetadata"]["reason"] for line in found} == {"lowConfidence"}


@pytest.mark.parametrize("answering", [{"rate": 1.0, "perMinute": 3}], indirect=True)
def test_per_minute_when_more_are_chosen_then_counted_and_not_kept(answering: Answering) -> None:
    answering.ask(*map(float, range(10)))

    parts.until(
        lambda: (figures := answering.captures.figures("a"))["kept"] + figures["overMinute"] == 10, "all to be judged"
    )
    figures = answering.captures.figures("a")
    assert 3 <= figures["kept"] <= 6  # the minute may end in between
    assert len(lines(answering.where.root)) == figures["kept"]


@pytest.mark.parametrize("answering", [{"disagreement": True}], indirect=True)
def test_disagreement_when_a_trial_tells_of_one_then_that_request_is_kept(answering: Answering) -> None:
    seen: list[agent_engine.Observation] = []
    answering.engine.observers.append(seen.append)
    answering.ask(1.0, 2.0)

    answering.captures.disagreed(seen[1])

    (line,) = answering.kept(1)
    assert line["eventMetadata"]["reason"] == "disagreement"
    assert array(line["deviceFleetInputs"][0], Path())[0, 0] == 2.0


@pytest.mark.parametrize("answering", [{"onRequest": True}], indirect=True)
def test_request_when_answered_then_the_last_one_is_on_disk_under_its_id(answering: Answering) -> None:
    answering.ask(1.0, 2.0)
    wanted = str(uuid.uuid4())

    assert answering.captures.request("a", wanted) == wanted

    (line,) = lines(answering.where.root)
    assert (line["eventMetadata"]["eventId"], line["eventMetadata"]["reason"]) == (wanted, "onRequest")
    assert array(line["deviceFleetInputs"][0], Path())[0, 0] == 2.0
    with pytest.raises(agent_captures.RequestError) as twice:
        answering.captures.request("a", wanted)
    assert twice.value.code == "ALREADY_EXISTS"
    with pytest.raises(agent_captures.RequestError) as wrong:
        answering.captures.request("a", "../../etc/passwd")
    assert wrong.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("answering", "asked", "code"),
    [({"onRequest": True}, False, "NOT_READY"), ({"rate": 0.5}, True, "FAILED_PRECONDITION")],
    indirect=["answering"],
    ids=["nothing answered", "not allowed"],
)
def test_request_when_it_cannot_be_kept_then_a_code_says_why(answering: Answering, asked: bool, code: str) -> None:
    if asked:
        answering.ask(1.0)

    with pytest.raises(agent_captures.RequestError) as refused:
        answering.captures.request("a")

    assert refused.value.code == code


@pytest.mark.parametrize("answering", [{"rate": 1.0}], indirect=True)
def test_rules_when_a_new_version_serves_then_its_own_apply_at_once(answering: Answering) -> None:
    answering.ask(1.0)
    answering.kept(1)
    answering.serving = SimpleNamespace(
        **{**vars(answering.serving), "version": "2.0.0", "settings": agent_settings.DEFAULT}
    )
    answering.ask(2.0)
    answering.serving = SimpleNamespace(
        **{**vars(answering.serving), "settings": agent_settings.Settings(capture={"rate": 1.0})}
    )
    answering.ask(3.0)

    found = answering.kept(2)
    assert [line["eventMetadata"]["modelVersion"] for line in found] == ["1.0.0", "2.0.0"]


@pytest.mark.parametrize("answering", [{"rate": 1.0, "onRequest": True}], indirect=True)
def test_alias_when_it_is_gone_then_its_arrays_are_forgotten(answering: Answering) -> None:
    answering.ask(1.0)
    answering.kept(1)
    answering.serving = None

    answering.captures.tick()

    assert answering.captures.figures("a") == {}


def test_store_when_another_agent_has_it_then_taken_over_when_that_one_ends(tmp_path: Path) -> None:
    old = Answering(tmp_path / "samples", rate=1.0)
    old.ask(1.0)
    old.kept(1)
    new = Answering(tmp_path / "samples", rate=1.0, onRequest=True)
    new.ask(2.0)
    try:
        assert new.captures.store is None
        old.ask(3.0)
        old.kept(2)
        old.captures.close()

        assert len(new.kept(1)) == 3
        new.captures.request("a")
    finally:
        new.captures.close()


@pytest.mark.parametrize("answering", [{"rate": 1.0}], indirect=True)
def test_memory_when_the_caller_writes_to_it_afterwards_then_the_capture_has_what_was_asked(
    answering: Answering,
) -> None:
    shared = bytearray(np.array([7.0, 8.0], np.float32).tobytes())
    view = np.frombuffer(shared, np.float32).reshape(1, 2)

    answering.engine.predict("a", {"x": view}, 1e12)
    shared[:] = bytes(8)

    (line,) = answering.kept(1)
    assert array(line["deviceFleetInputs"][0], Path()).tolist() == [[7.0, 8.0]]


def test_intake_when_full_then_new_ones_are_dropped_and_counted_by_number_and_by_bytes() -> None:
    intake: agent_intake.Intake[int] = agent_intake.Intake(items_limit=3, bytes_limit=100)

    assert [intake.put(number, 10) for number in range(5)] == [True, True, True, False, False]
    assert [intake.take(0.0) for _ in range(4)] == [0, 1, 2, None]
    assert [intake.put(1, 1000), intake.put(2, 1)] == [True, False]  # one always fits
    assert intake.dropped == 3


@pytest.mark.parametrize("answering", [{"rate": 1.0, "perMinute": 100000, "disk_bytes": 64 * 1024}], indirect=True)
def test_disk_bound_when_more_is_captured_then_the_oldest_go(answering: Answering) -> None:
    for number in range(90):
        answering.engine.predict("a", {"x": np.full((1, 1000), number, np.float32)}, 1e12)
    parts.until(lambda: sum(answering.captures.figures("a")[key] for key in ("kept", "dropped")) == 90, "all judged")

    assert taken(answering.where.root) <= 64 * 1024
    assert answering.captures.figures("a")["kept"] > 3
    last = lines(answering.where.root)[-1]
    (file,) = answering.where.root.rglob(last["deviceFleetInputs"][0]["file"].split("/")[1])
    assert np.frombuffer(file.read_bytes(), np.float32)[0] > 50


# ---- SIGKILL -------------------------------------------------------------------------------------------------------------


def taken(root: Path) -> int:
    """Bytes on the disk, as a file system with blocks of 4 KiB counts them."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in root.rglob("*") if path.is_file())


def killed_writer(folder: Path, disk_bytes: int, acknowledgements: int, pause_s: float) -> list[str]:
    """Ids that a writer acknowledged before it was killed, some time after that many."""
    process = subprocess.Popen(
        [sys.executable, WRITER, folder, str(disk_bytes)],
        env={**os.environ, "PYTHONPATH": str(parts.AGENT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = [process.stdout.readline().strip() for _ in range(acknowledgements)]
    threading.Event().wait(pause_s)  # anywhere within a write
    process.kill()
    found += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    process.wait(WAIT_S)
    return found


def test_kill_when_sampling_and_asked_for_then_all_that_was_acknowledged_is_there_and_whole(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    acknowledged: list[str] = []
    for _ in range(4):
        acknowledged += killed_writer(tmp_path / "c", 1 << 30, chance.randrange(1, 15), chance.random() * 0.02)

    again = Answering(tmp_path / "c", onRequest=True)
    again.ask(1.0)
    again.captures.request("a")  # what a kill left half is repaired
    again.captures.close()

    found = {line["eventMetadata"]["eventId"]: line for line in lines(tmp_path / "c")}
    assert len(acknowledged) == len(set(acknowledged)) >= 4
    assert set(acknowledged) <= found.keys()
    assert any(line["eventMetadata"]["reason"] == "rate" for line in found.values())
    files = {path.name: path.parent for path in (tmp_path / "c").rglob("*.tensors/*")}
    for line in found.values():
        (given,), (answered,) = line["deviceFleetInputs"], line["deviceFleetOutputs"]
        folder = files[given["file"].split("/")[1]].parent if "file" in given else Path()
        assert (array(given, folder) * 2 == array(answered, folder)).all()


def test_kill_when_the_store_is_small_then_its_bound_holds_after_each(tmp_path: Path) -> None:
    chance, bound = random.Random(SEED), 256 * 1024
    for _ in range(3):
        acknowledged = killed_writer(tmp_path / "c", bound, chance.randrange(15, 30), chance.random() * 0.02)

        assert taken(tmp_path / "c") <= bound
        left = {
            json.loads(line)["eventMetadata"]["eventId"]
            for path in (tmp_path / "c").rglob("*.jsonl")
            for line in path.read_text().splitlines()
            if line.endswith("}")
        }
        assert acknowledged[-1] in left
