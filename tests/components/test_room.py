"""What the memory budget counts: both sides of a trial, what requests keep, and models that nobody has loaded yet."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import agent_growth
import agent_memory
import agent_registry
import model_client
import numpy as np
import psutil
import pytest

from tests.components import models, parts

MB = 1_000_000
SIZE = 8  # MB of each model; loaded it takes a little more
ONE_FITS, TWO_FIT = 14 * MB, 22 * MB
TRIAL = {"mode": "shadow", "share": 1.0, "measure": "equal", "maxSeconds": 3600}
SMALL, LARGE = np.ones((1, 64), np.float32), np.ones((1500, 64), np.float32)


def offer(device: parts.Device, folder: Path, **settings: Any) -> dict[str, Any]:
    described = json.loads((folder / "model.json").read_text())
    component, version = f"com.example.{described['name']}", described["version"]
    header = {"op": "offer", "component": component, "version": version, "artifacts": str(folder)}
    return parts.ask(device, header | {"settings": settings})


def ask(device: parts.Device, alias: str, inputs: Any = SMALL) -> str:
    """The version that answered."""
    client = model_client.Client(str(device.socket))
    try:
        return client.predict(alias, {"x": inputs}, deadline_s=20.0).version
    finally:
        client.close()


def rows(device: parts.Device) -> dict[str, dict[str, Any]]:
    return {row["alias"]: row for row in parts.serving(device)}


def private(process: Any) -> int:
    """Memory that is the process's alone, in bytes."""
    return int(psutil.Process(process.pid).memory_full_info().uss)


def with_two(device: parts.Device, tmp_path: Path, budget: int) -> Path:
    """An agent in which `b` answers and `a` had to go for it; the folder of a successor of `a`."""
    folders = [models.weighty(tmp_path / f"a-{number}", "a", number, SIZE) for number in (1, 2)]
    other = models.weighty(tmp_path / "b-1", "b", 1, SIZE)
    process = device.start_agent()
    for folder in (folders[0], other):
        assert offer(device, folder)["ok"] is True
    process.terminate()
    process.wait(parts.WAIT_S)
    device.start_agent("--memory-bytes", str(budget))
    assert ask(device, "b") == "1.0.0"
    return folders[1]


# ---- a trial beside what was out of memory ---------------------------------------------------------------------------


def test_trial_when_what_serves_was_evicted_and_both_do_not_fit_then_refused_and_everybody_answers(
    device: parts.Device, tmp_path: Path
) -> None:
    successor = with_two(device, tmp_path, ONE_FITS)
    assert rows(device)["a"]["state"] == "evicted"

    reply = offer(device, successor, trial=TRIAL)

    assert (reply["ok"], reply["code"]) == (False, "RESOURCE_EXHAUSTED")
    assert "no memory for a 2.0.0: it needs " in reply["message"]
    assert "of 14.0 MB are taken (a 1.0.0 " in reply["message"]
    assert [ask(device, alias) for alias in ("a", "b", "a")] == ["1.0.0"] * 3
    assert rows(device)["a"]["candidate"] == ""


def test_trial_when_what_serves_was_evicted_and_both_fit_without_others_then_both_are_in_memory_and_compared(
    device: parts.Device, tmp_path: Path
) -> None:
    successor = with_two(device, tmp_path, TWO_FIT)
    third = models.weighty(tmp_path / "c-1", "c", 1, SIZE)
    assert offer(device, third)["ok"] is True  # the one not used for longest leaves for it
    assert rows(device)["a"]["state"] == "evicted"

    reply = offer(device, successor, trial=TRIAL, swap="spill")

    assert reply["ok"] is True, reply

    def samples() -> int:
        assert ask(device, "a") == "1.0.0"
        trials = parts.ask(device, {"op": "trial", "alias": "a"})["trials"]
        return int(trials[0]["samples"]) if trials else 0

    parts.until(samples, "a sample of the trial")


def test_trial_when_the_agent_starts_with_too_little_memory_for_both_then_what_serves_answers_alone(
    device: parts.Device, tmp_path: Path
) -> None:
    folders = [models.weighty(tmp_path / f"a-{number}", "a", number, SIZE) for number in (1, 2)]
    process = device.start_agent()
    assert offer(device, folders[0])["ok"] is True
    assert offer(device, folders[1], trial=TRIAL)["ok"] is True
    process.terminate()
    process.wait(parts.WAIT_S)

    device.start_agent("--memory-bytes", str(ONE_FITS))

    assert (ask(device, "a"), rows(device)["a"]["state"] != "evicted") == ("1.0.0", True)
    assert "2.0.0 cannot be tried: no memory for a 2.0.0: it needs " in device.log("marram.ModelAgent")


# ---- models that just came back --------------------------------------------------------------------------------------


def test_offer_when_the_only_other_just_came_back_then_it_waits_for_that_and_is_accepted(
    device: parts.Device, tmp_path: Path
) -> None:
    successor = with_two(device, tmp_path, ONE_FITS)
    for alias in ("a", "b"):  # one after the other they come back
        ask(device, alias)

    reply = offer(device, successor)

    assert reply["ok"] is True, reply
    assert [ask(device, alias) for alias in ("a", "b")] == ["2.0.0", "1.0.0"]


def test_offer_when_two_others_keep_taking_turns_then_it_is_next(device: parts.Device, tmp_path: Path) -> None:
    successor = with_two(device, tmp_path, ONE_FITS)
    third = models.weighty(tmp_path / "c-1", "c", 1, SIZE)
    over, errors = threading.Event(), list[BaseException]()

    def keep_asking(alias: str) -> None:
        try:
            while not over.is_set():
                ask(device, alias)
        except BaseException as error:  # told by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=keep_asking, args=(alias,)) for alias in ("a", "b")]
    for thread in threads:
        thread.start()
    try:
        replies = [offer(device, third), offer(device, successor, swap="replace")]
    finally:
        over.set()
        for thread in threads:
            thread.join(parts.WAIT_S)

    assert [reply["ok"] for reply in replies] == [True, True], replies
    assert errors == []


# ---- what was never loaded -------------------------------------------------------------------------------------------


def test_offer_when_only_the_estimate_is_too_large_then_measured_and_accepted(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--memory-bytes", str(ONE_FITS))

    reply = offer(device, models.weighty(tmp_path / "a", "a", 1, SIZE))

    assert reply["ok"] is True, reply
    assert SIZE * MB <= rows(device)["a"]["memory_bytes"] <= ONE_FITS


def test_offer_when_measuring_shows_that_there_is_no_room_then_refused_by_what_was_measured_and_nobody_left(
    device: parts.Device, tmp_path: Path
) -> None:
    """A file with 8 MB of weights, and 40 more that are made when it is loaded."""
    process = device.start_agent("--memory-bytes", str(ONE_FITS * 2))
    assert offer(device, models.weighty(tmp_path / "b", "b", 1, SIZE))["ok"] is True
    folder = models.swelling(tmp_path / "a", "a", 40, SIZE)
    before = private(process)

    first, second = (offer(device, folder) for _ in range(2))

    for reply in (first, second):
        assert reply["code"] == "RESOURCE_EXHAUSTED"
        assert "MB (measured)" in reply["message"]
    assert (ask(device, "b"), rows(device)["b"]["state"]) == ("1.0.0", "serving")
    assert private(process) <= before + 10 * MB  # it was in a process of its own


def test_offer_when_what_is_measured_answers_wrongly_then_refused_for_that(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--memory-bytes", str(ONE_FITS))
    folder = models.weighty(tmp_path / "a", "a", 1, SIZE)
    described = json.loads((folder / "model.json").read_text())
    described["golden"]["samples"][0]["outputs"]["y"] = [2]
    (folder / "model.json").write_text(json.dumps(described))

    reply = offer(device, folder)

    assert (reply["code"], rows(device)) == ("GOLDEN_MISMATCH", {})


# ---- what requests keep ----------------------------------------------------------------------------------------------


def test_request_when_it_makes_a_model_keep_more_than_the_budget_then_that_is_given_back_and_nobody_leaves(
    device: parts.Device, tmp_path: Path
) -> None:
    """LARGE makes a model of 4 MB keep 90 MB for its products."""
    process = device.start_agent("--memory-bytes", str(40 * MB))
    for alias in ("a", "b"):
        assert offer(device, models.weighty(tmp_path / alias, alias, 1, 4))["ok"] is True
    for alias in ("a", "b"):
        ask(device, alias)
    before = private(process)

    for alias in ("a", "b", "a"):
        ask(device, alias, LARGE)

    parts.until(lambda: private(process) <= before + 15 * MB, f"{before} bytes and 15 MB, now {private(process)}")
    parts.until(lambda: sum(row["memory_bytes"] for row in parts.serving(device)) <= 40 * MB)
    assert {row["state"] for row in parts.serving(device)} == {"serving"}


def test_request_when_there_is_room_for_what_the_model_keeps_then_it_keeps_and_counts_it(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--memory-bytes", str(400 * MB))
    assert offer(device, models.weighty(tmp_path / "a", "a", 1, 4))["ok"] is True
    before = rows(device)["a"]["memory_bytes"]

    ask(device, "a", LARGE)

    kept = rows(device)["a"]["memory_bytes"] - before
    assert 60 * MB < kept < 250 * MB


def test_offer_when_what_requests_keep_is_in_the_way_then_that_goes_and_no_model(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--memory-bytes", str(260 * MB))
    assert offer(device, models.weighty(tmp_path / "a", "a", 1, 4))["ok"] is True
    ask(device, "a", LARGE)
    new = models.weighty(tmp_path / "b", "b", 1, 60)

    assert offer(device, new)["ok"] is True

    assert {alias: row["state"] for alias, row in rows(device).items()} == {"a": "serving", "b": "serving"}
    assert sum(row["memory_bytes"] for row in parts.serving(device)) <= 260 * MB


def test_request_when_the_model_has_a_process_of_its_own_then_what_it_keeps_is_given_back_too(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--memory-bytes", str(100 * MB))
    assert offer(device, models.weighty(tmp_path / "a", "a", 1, 4), isolated=True)["ok"] is True
    pid = rows(device)["a"]["process"]["pid"]
    ask(device, "a")
    before = agent_memory.process_bytes(pid)

    ask(device, "a", LARGE)

    parts.until(lambda: agent_memory.process_bytes(pid) <= before + 15 * MB, f"{before} bytes and 15 MB")
    assert ask(device, "a", LARGE) == "1.0.0"
    assert agent_memory.process_bytes(pid) <= before + 15 * MB


class Eater:
    """A model whose runs leave as many bytes with it as its inputs have, unless they are to leave nothing."""

    def __init__(self) -> None:
        self.kept = 0
        self.lean: list[bool] = []

    def predict(self, inputs: Any, lean: bool = False) -> dict[str, Any]:
        self.lean.append(lean)
        self.kept = 0 if lean else max(self.kept, inputs["x"].nbytes)
        return {}

    def taken(self) -> Any:
        before = self.kept
        return lambda: self.kept - before


def test_growth_when_it_was_given_back_then_runs_of_that_size_leave_nothing_and_smaller_ones_are_measured_again() -> (
    None
):
    model = Eater()
    growth = agent_growth.Growth(lambda one: one.taken(), 10)
    sizes = {size: {"x": np.zeros(size, np.uint8)} for size in (5, 100, 200)}

    growth.predict(model, sizes[200], 200)
    assert (growth.grown_bytes, growth.plain_bytes) == (200, 200)
    growth.relieve(model, sizes[5], lambda: True)
    assert (growth.grown_bytes, growth.plain_bytes, growth.costly) == (0, 10, (200, 200))
    growth.predict(model, sizes[100], 100)
    growth.predict(model, sizes[200], 200)

    assert model.lean == [False, True, False, True]
    assert growth.grown_bytes == 100


def test_growth_when_others_compute_while_it_is_given_back_then_it_counts_until_the_next_time() -> None:
    model = Eater()
    growth = agent_growth.Growth(lambda one: one.taken(), 10)
    large, small = {"x": np.zeros(200, np.uint8)}, {"x": np.zeros(5, np.uint8)}
    growth.predict(model, large, 200)

    growth.relieve(model, small, lambda: False)
    first = growth.grown_bytes
    growth.relieve(model, small, lambda: False)

    assert (first, growth.grown_bytes, growth.costly) == (200, 0, (200, 200))


def test_growth_when_something_else_is_measured_then_the_run_leaves_nothing_and_the_next_is_measured() -> None:
    model = Eater()
    growth = agent_growth.Growth(lambda one: one.taken(), 10)
    large = {"x": np.zeros(200, np.uint8)}

    with agent_growth.undisturbed():
        growth.predict(model, large, 200)
    growth.predict(model, large, 200)

    assert (model.lean, growth.grown_bytes) == ([True, False], 200)


@pytest.mark.parametrize(("free", "kept"), [(199, (200, 200)), (200, ())], ids=["no room", "room"])
def test_growth_when_there_is_room_again_then_large_runs_may_keep_memory(free: int, kept: tuple[int, ...]) -> None:
    growth = agent_growth.Growth(lambda one: one.taken(), 10, (200, 200))

    growth.allow(free)

    assert growth.costly == kept


def test_costs_when_a_model_kept_too_much_then_the_next_run_of_the_agent_knows(tmp_path: Path) -> None:
    registry = agent_registry.Registry.open(tmp_path)
    registry.learn("k" * 64, agent_registry.Cost(5, 0.5, (200, 300)))
    registry.remove("nobody")
    registry.close()

    again = agent_registry.Registry.open(tmp_path)
    again.close()

    assert tuple(again.costs["k" * 64].costly) == (200, 300)
