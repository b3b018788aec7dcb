"""Models of a few megabytes in a real agent with a memory budget: swap policies, eviction, and many swaps under load."""

from __future__ import annotations

import dataclasses
import json
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent_aliases
import agent_edge
import agent_edge_messages
import agent_engine
import agent_frames
import agent_oip
import agent_oip_repository
import agent_registry
import model_client
import numpy as np
import psutil
import pytest

from tests.components import models, parts

MB = 1_000_000
SIZE = 8  # MB of each model; loaded it takes a little more
ONE_FITS, TWO_FIT, THREE_FIT = 14 * MB, 22 * MB, 30 * MB
INPUTS = {"x": np.ones((2, 64), np.float32)}


@dataclasses.dataclass(frozen=True)
class Models:
    """Folders by alias and version, and what loading each took, as an agent measured and kept it."""

    folder: Path
    costs: dict[str, Any]

    def of(self, alias: str, number: int) -> Path:
        return self.folder / f"{alias}-{number}"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models whose costs an agent without a budget has measured."""
    folder = tmp_path_factory.mktemp("models")
    with parts.device() as device:
        process = device.start_agent()
        device.offer("1.0.0")  # what only the first model costs is not theirs
        for alias, number in (("a", 1), ("a", 2), ("b", 3), ("c", 4)):
            accept(device, alias, number, models.weighty(folder / f"{alias}-{number}", alias, number, SIZE))
        process.terminate()
        process.wait(parts.WAIT_S)
        costs = json.loads((device.work("marram.ModelAgent") / "registry/registry.json").read_text())["costs"]
    return Models(folder, costs)


def offer(device: parts.Device, alias: str, number: int, folder: Path, **settings: Any) -> dict[str, Any]:
    """The agent's answer."""
    header = {"op": "offer", "component": f"com.example.{alias}", "version": f"{number}.0.0"}
    return parts.ask(device, header | {"artifacts": str(folder), "settings": settings})


def accept(device: parts.Device, alias: str, number: int, folder: Path, **settings: Any) -> None:
    """An offer that goes well."""
    reply = offer(device, alias, number, folder, **settings)
    assert reply["ok"] is True, reply


def start(device: parts.Device, measured: Models, budget: int) -> Any:
    """An agent with a budget that knows what the models take."""
    store = device.work("marram.ModelAgent") / "registry"
    store.mkdir()
    (store / "registry.json").write_text(json.dumps({"aliases": {}, "costs": measured.costs}))
    return device.start_agent("--memory-bytes", str(budget))


def rows(device: parts.Device) -> dict[str, dict[str, Any]]:
    return {row["alias"]: row for row in parts.serving(device)}


def states(device: parts.Device) -> dict[str, str]:
    return {alias: row["state"] for alias, row in rows(device).items()}


def taken(device: parts.Device) -> int:
    return sum(int(row["memory_bytes"]) for row in parts.serving(device))


class Load(threading.Thread):
    """Asks one alias without a pause until told to end; keeps what was answered."""

    def __init__(self, device: parts.Device, alias: str, deadline_s: float = 30.0) -> None:
        super().__init__()
        self.alias = alias
        self.answers: list[tuple[str, tuple[float, ...]]] = []
        self.errors: list[str] = []
        self.over = threading.Event()
        self._deadline_s = deadline_s
        self._client = model_client.Client(str(device.socket))

    def run(self) -> None:
        while not self.over.is_set():
            try:
                answer = self._client.predict(self.alias, INPUTS, deadline_s=self._deadline_s)
            except (TimeoutError, ValueError) as error:
                self.errors.append(str(error))
                break
            self.answers.append((answer.version, tuple(answer.outputs["y"].round(2).tolist())))
            self.over.wait(0.001)  # two cores, shared by everyone
        self._client.close()

    def end(self) -> set[tuple[str, tuple[float, ...]]]:
        """Different answers; every request was answered."""
        self.over.set()
        self.join(parts.WAIT_S)
        assert self.errors == []
        return set(self.answers)


def whole(number: int) -> tuple[str, tuple[float, ...]]:
    """What a model that is all there answers."""
    return f"{number}.0.0", (float(number), float(number))


def ask(device: parts.Device, alias: str) -> tuple[str, tuple[float, ...]]:
    client = model_client.Client(str(device.socket))
    answer = client.predict(alias, INPUTS, deadline_s=20.0)
    client.close()
    return answer.version, tuple(answer.outputs["y"].round(2).tolist())


def test_overlap_when_old_and_new_exceed_the_budget_then_refused_with_the_figures(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, ONE_FITS)
    accept(device, "a", 1, measured.of("a", 1))

    reply = offer(device, "a", 2, measured.of("a", 2))

    assert reply["code"] == "RESOURCE_EXHAUSTED"
    assert "no memory for a 2.0.0: it needs " in reply["message"]
    assert "MB (measured)" in reply["message"]
    assert "of 14.0 MB are taken (a 1.0.0 " in reply["message"]
    assert ask(device, "a") == whole(1)
    assert (rows(device)["a"]["desired"], rows(device)["a"]["reason"][:18]) == ("2.0.0", "RESOURCE_EXHAUSTED")


def test_overlap_when_it_was_never_loaded_and_its_file_alone_is_too_large_then_judged_by_an_estimate(
    device: parts.Device, measured: Models
) -> None:
    device.start_agent("--memory-bytes", str(9 * MB))

    reply = offer(device, "a", 1, measured.of("a", 1))

    assert "it needs 32.0 MB (estimated from its file), 0.0 MB of 9.0 MB are taken" in reply["message"]


def test_estimate_when_the_load_shows_more_then_the_model_leaves_and_the_cost_is_known(
    device: parts.Device, tmp_path: Path
) -> None:
    """A small file that becomes large: its weights are made when it is loaded."""
    folder = models.swelling(tmp_path / "swelling", "s", 24)
    device.start_agent("--memory-bytes", str(ONE_FITS))

    first, second = (offer(device, "s", 1, folder)["message"] for _ in range(2))

    assert [("measured" in message, "no memory for s 1.0.0" in message) for message in (first, second)] == [
        (True, True)
    ] * 2
    assert parts.serving(device) == []


def test_replace_when_they_do_not_fit_together_then_requests_wait_and_none_fails(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, ONE_FITS)
    accept(device, "a", 1, measured.of("a", 1))
    load = Load(device, "a")
    load.start()
    parts.until(lambda: len(load.answers) > 5, "answers")

    reply = offer(device, "a", 2, measured.of("a", 2), swap="replace")
    before = len(load.answers)
    parts.until(lambda: len(load.answers) > before + 5, "answers of the new one")

    assert reply["ok"] is True, reply
    assert load.end() == {whole(1), whole(2)}
    assert taken(device) <= ONE_FITS


def test_replace_when_the_new_one_is_bad_then_the_old_is_back_and_no_request_failed(
    device: parts.Device, measured: Models, tmp_path: Path
) -> None:
    bad = models.weighty(tmp_path / "bad", "a", 5, SIZE)
    described = json.loads((bad / "model.json").read_text())
    described["golden"]["samples"][0]["outputs"]["y"] = [6]
    (bad / "model.json").write_text(json.dumps(described))
    start(device, measured, 36 * MB)  # the estimate for the unknown one fits, but only without the old one
    accept(device, "a", 1, measured.of("a", 1))
    load = Load(device, "a")
    load.start()
    parts.until(lambda: load.answers, "answers")

    reply = offer(device, "a", 5, bad, swap="replace")
    before = len(load.answers)
    parts.until(lambda: len(load.answers) > before + 5, "answers of the old one")

    assert "golden sample 1 of 1: y is 5, expected 6" in reply["message"]
    assert "(1.0.0 was back after " in reply["message"]
    assert load.end() == {whole(1)}


def test_replace_when_the_system_has_no_thread_for_it_then_the_old_is_back_and_nobody_waits_for_ever(
    device: parts.Device, client: model_client.Client
) -> None:
    process = device.start_agent()
    for number in (2, 1):  # it learns what they take
        accept(device, "small", number, models.weighty(device.root / f"small-{number}", "small", number, 1.5))
    process.kill()
    process.wait(parts.WAIT_S)
    costs = json.loads((device.work("marram.ModelAgent") / "registry/registry.json").read_text())["costs"]
    one_fits = max(each["memory_bytes"] for each in costs.values()) * 5 // 4
    process = device.start_agent("--memory-bytes", str(one_fits))
    before = resource.prlimit(process.pid, resource.RLIMIT_AS)
    header = {"op": "offer", "component": "com.example.small", "version": "2.0.0", "settings": {"swap": "replace"}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect(str(device.socket))
        agent_frames.send(one, {"op": "list"})
        assert agent_frames.receive(one)[0]["ok"] is True  # it has its thread
        few = int(psutil.Process(process.pid).memory_info().vms) + 6_500_000  # less than the stack of another
        resource.prlimit(process.pid, resource.RLIMIT_AS, (few, before[1]))
        agent_frames.send(one, {**header, "artifacts": str(device.root / "small-2")})
        reply = agent_frames.receive(one)[0]
    resource.prlimit(process.pid, resource.RLIMIT_AS, before)

    assert (reply["ok"], "thread" in reply["message"]) == (False, True), reply
    assert client.predict("small", INPUTS, deadline_s=10.0).version == "1.0.0"


def test_replace_when_both_loads_take_longer_than_the_gap_then_refused_before_anything_is_unloaded(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, ONE_FITS)
    accept(device, "a", 1, measured.of("a", 1))

    reply = offer(device, "a", 2, measured.of("a", 2), swap="replace", gapSeconds=0.001)

    assert (reply["code"], ask(device, "a")) == ("GAP_TOO_SHORT", whole(1))


def test_spill_when_they_do_not_fit_together_then_another_leaves_and_comes_back_when_asked(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, TWO_FIT)
    accept(device, "a", 1, measured.of("a", 1))
    accept(device, "b", 3, measured.of("b", 3))
    refused = offer(device, "a", 2, measured.of("a", 2))

    reply = offer(device, "a", 2, measured.of("a", 2), swap="spill")

    assert (refused["code"], reply["ok"]) == ("RESOURCE_EXHAUSTED", True)
    assert states(device) == {"a": "serving", "b": "evicted"}
    assert rows(device)["b"]["memory_bytes"] == 0
    assert (ask(device, "b"), states(device)["b"]) == (whole(3), "serving")
    assert ask(device, "a") == whole(2)


def test_admission_when_a_new_alias_needs_room_then_the_least_used_leaves_but_no_pinned_one(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, TWO_FIT)
    accept(device, "a", 1, measured.of("a", 1), pinned=True)
    accept(device, "b", 3, measured.of("b", 3))
    ask(device, "b")

    accept(device, "c", 4, measured.of("c", 4))

    assert states(device) == {"a": "serving", "b": "evicted", "c": "serving"}
    assert taken(device) <= TWO_FIT


def test_evicted_when_only_pinned_models_could_go_then_its_requests_are_told_the_figures(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, TWO_FIT)
    accept(device, "b", 3, measured.of("b", 3))
    for alias, number in (("a", 1), ("c", 4)):
        accept(device, alias, number, measured.of(alias, number), pinned=True)
    tensors, body = [{"name": "x", "dtype": "float32", "shape": [2, 64]}], INPUTS["x"].tobytes()

    reply = parts.ask(device, {"op": "predict", "alias": "b", "tensors": tensors, "deadline_s": 0.3}, body)

    assert (reply["code"], reply["message"].partition(": it needs")[0]) == ("BUSY", "no memory for b 3.0.0")
    assert ask(device, "a") == whole(1)


def test_evicted_when_two_that_do_not_fit_are_asked_in_turn_then_both_answer(
    device: parts.Device, measured: Models
) -> None:
    start(device, measured, ONE_FITS)
    accept(device, "a", 1, measured.of("a", 1))
    accept(device, "b", 3, measured.of("b", 3))
    loads = [Load(device, alias) for alias in ("a", "b")]
    for load in loads:
        load.start()

    parts.until(lambda: all(len(load.answers) > 3 for load in loads), "answers of both")

    assert [load.end() for load in loads] == [{whole(1)}, {whole(3)}]


def test_restart_when_not_all_fit_then_pinned_ones_are_first_and_the_others_come_when_asked(
    device: parts.Device, measured: Models
) -> None:
    process = start(device, measured, THREE_FIT)
    for alias, number in (("a", 1), ("b", 3), ("c", 4)):
        accept(device, alias, number, measured.of(alias, number), pinned=alias == "c")
    process.kill()
    process.wait(parts.WAIT_S)

    device.start_agent("--memory-bytes", str(TWO_FIT))

    assert states(device) == {"a": "serving", "b": "evicted", "c": "serving"}
    assert [ask(device, alias) for alias in "abc"] == [whole(1), whole(3), whole(4)]
    assert taken(device) <= TWO_FIT


def test_twenty_swaps_when_clients_never_pause_then_no_request_fails_and_each_answer_is_of_one_whole_version(
    device: parts.Device, tmp_path: Path
) -> None:
    folders = {number: models.weighty(tmp_path / str(number), "a", number, number) for number in (1, 2, 3, 4)}
    device.start_agent()
    accept(device, "a", 1, folders[1])
    loads = [Load(device, "a") for _ in range(3)]
    for load in loads:
        load.start()

    for turn in range(20):
        number = turn % 4 + 1
        accept(device, "a", number, folders[number])
        before = len(loads[0].answers)
        parts.until(lambda before=before: loads[0].errors or len(loads[0].answers) > before, "an answer")

    answers = set().union(*(load.end() for load in loads))
    assert answers == {whole(number) for number in folders}


class Doors:
    """The loading halves of both doors for clients of others, above a table whose budget is too small for everything."""

    def __init__(self, folder: Path) -> None:
        models.weighty(folder / "repository/large", "large", 1, SIZE)
        self.folder = folder
        self.registry = agent_registry.Registry.open(folder / "store")
        self.aliases = agent_aliases.Aliases(self.registry, 0, memory_bytes=MB)
        self.engine = agent_engine.Engine(self.aliases.serving)


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    made = Doors(tmp_path)
    yield made
    made.registry.close()


def test_load_over_the_open_inference_protocol_when_there_is_no_room_then_resource_exhausted(doors: Doors) -> None:
    repository = agent_oip_repository.Repository(doors.aliases, "token", doors.folder / "repository")

    with pytest.raises(agent_oip.OipError, match="no memory for large") as caught:
        repository.load("large", "token", {})

    assert caught.value.code == "RESOURCE_EXHAUSTED"


def test_load_over_edge_managers_door_when_there_is_no_room_then_resource_exhausted(doors: Doors) -> None:
    rules = agent_edge.Rules(token="", open_load=True)
    service = agent_edge.Service(doors.aliases, doors.engine, None, rules)
    asked = SimpleNamespace(name="large", url=str(doors.folder / "repository/large"))

    with pytest.raises(agent_edge_messages.EdgeError, match="no memory for large") as caught:
        service.load(asked, None)

    assert caught.value.code == "RESOURCE_EXHAUSTED"
