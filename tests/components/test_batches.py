"""Requests joined into one run: who waits together, what each gets, and that a bad one harms nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent_batches
import agent_check
import agent_engine
import agent_settings
import model_client
import numpy as np
import pytest

from tests.components import models, parts

WAIT_S = 20.0
Array = np.ndarray[Any, Any]


class Doubling:
    """Answers twice its rows once it is let go, and remembers the rows of each run; refuses a run with a negative number."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.runs: list[list[float]] = []

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        rows = inputs["x"]
        self.runs.append(rows.reshape(-1).tolist())
        assert self.go.wait(WAIT_S)
        if (rows < 0).any():
            raise agent_check.InputError("negative")
        return {"y": rows * 2}


class World:
    """An engine with one core and one alias, `m`; `first` holds the core until `model.go`."""

    def __init__(self) -> None:
        self.model: Any = Doubling()
        self.settings = agent_settings.read({"batching": {"maxRows": 4}})
        self.engine = agent_engine.Engine(self._serving)
        self.pool = futures.ThreadPoolExecutor(16)

    def _serving(self, alias: str) -> Any:
        return SimpleNamespace(model=self.model, component="c", version="1", settings=self.settings)

    def ask(self, *rows: float, deadline_s: float = WAIT_S) -> futures.Future[agent_engine.Answer]:
        inputs = {"x": np.array([[row] for row in rows], np.float32)}
        return self.pool.submit(self.engine.predict, "m", inputs, time.monotonic() + deadline_s)

    def ask_behind(self, *asked: tuple[float, ...]) -> list[futures.Future[agent_engine.Answer]]:
        """These wait one behind the other while another request computes."""
        self.ask(100.0)
        until(lambda: self.model.runs)
        found = []
        for number, rows in enumerate(asked, 1):
            found.append(self.ask(*rows))
            until(lambda number=number: self.engine.figures()["m"]["waiting"] == number)  # type: ignore[misc]
        return found


def until(condition: Callable[[], Any]) -> None:
    parts.until(condition, "the requests to wait")


def values(done: futures.Future[agent_engine.Answer]) -> list[float]:
    found: list[float] = done.result(WAIT_S).outputs["y"].reshape(-1).tolist()
    return found


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.model.go.set()
    made.pool.shutdown()


def test_predict_when_requests_wait_together_then_one_run_and_each_gets_its_rows(world: World) -> None:
    seen: list[agent_engine.Observation] = []
    world.engine.observers.append(seen.append)

    asked = world.ask_behind((1.0,), (2.0, 3.0), (4.0,))
    world.model.go.set()

    assert [values(one) for one in asked] == [[2.0], [4.0, 6.0], [8.0]]
    assert world.model.runs == [[100.0], [1.0, 2.0, 3.0, 4.0]]
    until(lambda: len(seen) == 4)
    pairs = {tuple(one.inputs["x"].reshape(-1).tolist()): one.answer.outputs["y"].reshape(-1).tolist() for one in seen}
    assert pairs == {(100.0,): [200.0], (1.0,): [2.0], (2.0, 3.0): [4.0, 6.0], (4.0,): [8.0]}
    figures = world.engine.figures()["m"]
    assert (figures["count"], figures["joined"], figures["errors"], figures["waiting"]) == (4, 2, 0, 0)


def test_predict_when_more_wait_than_a_run_may_have_then_several_runs(world: World) -> None:
    asked = world.ask_behind(*((float(number),) for number in range(6)))
    world.model.go.set()

    assert [values(one) for one in asked] == [[2.0 * number] for number in range(6)]
    assert world.model.runs == [[100.0], [0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]


def test_predict_when_one_of_a_batch_is_bad_then_the_others_get_their_answers(world: World) -> None:
    asked = world.ask_behind((1.0,), (-2.0,), (3.0,))
    world.model.go.set()

    assert (values(asked[0]), values(asked[2])) == ([2.0], [6.0])
    with pytest.raises(agent_check.InputError, match="negative"):
        asked[1].result(WAIT_S)
    assert world.model.runs[1] == [1.0, -2.0, 3.0]
    assert sorted(world.model.runs[2:]) == [[-2.0], [1.0], [3.0]]


def test_predict_when_answers_have_no_rows_then_each_is_computed_for_itself(world: World) -> None:
    class Sum(Doubling):
        def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
            super().predict(inputs)
            return {"y": inputs["x"].sum()}

    world.model = Sum()
    asked = world.ask_behind((1.0,), (2.0, 3.0))
    world.model.go.set()

    assert [values(one) for one in asked] == [[1.0], [5.0]]


def test_predict_when_rows_differ_in_shape_or_there_is_only_one_kind_then_not_joined(world: World) -> None:
    world.ask(100.0)
    until(lambda: world.model.runs)
    narrow = world.ask(1.0)
    until(lambda: world.engine.figures()["m"]["waiting"] == 1)
    inputs = {"x": np.array([[2.0, 3.0]], np.float32)}
    wide = world.pool.submit(world.engine.predict, "m", inputs, time.monotonic() + WAIT_S)
    until(lambda: world.engine.figures()["m"]["waiting"] == 2)
    world.model.go.set()

    assert (values(narrow), values(wide)) == ([2.0], [4.0, 6.0])
    assert sorted(world.model.runs[1:]) == [[1.0], [2.0, 3.0]]


def test_predict_when_the_leader_or_a_follower_gives_up_then_the_others_are_answered(world: World) -> None:
    world.ask(100.0)
    until(lambda: world.model.runs)
    leader = world.ask(1.0, deadline_s=1.5)
    until(lambda: world.engine.figures()["m"]["waiting"] == 1)
    late, patient = world.ask(2.0, deadline_s=0.2), world.ask(3.0)
    for one in (late, leader):
        with pytest.raises(agent_engine.BusyError, match="deadline"):
            one.result(WAIT_S)
    world.model.go.set()

    assert values(patient) == [6.0]
    assert world.model.runs == [[100.0], [3.0]]


def test_deadline_when_it_passes_for_who_joined_then_counted_as_refused(world: World) -> None:
    world.ask(100.0)
    until(lambda: world.model.runs)
    leader = world.ask(1.0)
    until(lambda: world.engine.figures()["m"]["waiting"] == 1)

    with pytest.raises(agent_engine.BusyError, match="before its batch was computed"):
        world.ask(2.0, deadline_s=0.1).result(WAIT_S)

    assert world.engine.figures()["m"]["refused"] == 1
    world.model.go.set()
    assert values(leader) == [2.0]


def test_answer_when_joined_then_in_memory_of_its_own(world: World) -> None:
    """An observer may keep one; it must not keep the rows of all with it."""
    asked = world.ask_behind((1.0,), (2.0, 3.0))
    world.model.go.set()

    assert [one.result(WAIT_S).outputs["y"].base is None for one in asked] == [True, True]


class Single(Doubling):
    """A version that takes no more than one row at a time, and none with a 3."""

    def predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        if len(inputs["x"]) > 1 or (inputs["x"] == 3).any():
            raise agent_check.InputError("one row, and no 3")
        return super().predict(inputs)


def test_canary_when_the_candidate_cannot_answer_a_batch_then_it_answers_each_and_only_what_it_cannot_counts(
    world: World,
) -> None:
    model = Single()
    model.go.set()
    candidate = SimpleNamespace(model=model, component="c", version="2", settings=agent_settings.DEFAULT)
    fell_back: list[float] = []
    asked = world.ask_behind((1.0,), (2.0,), (3.0,))
    world.engine.observers.append(lambda seen: None)
    world.engine.route = lambda alias, serving: candidate
    world.engine.fell_back = lambda seen, why: fell_back.append(float(seen.inputs["x"][0, 0]))
    world.model.go.set()

    assert [values(one) for one in asked] == [[2.0], [4.0], [6.0]]
    assert [one.result().version for one in asked] == ["2", "2", "1"]
    world.pool.shutdown()
    assert fell_back == [3.0]


def test_agent_when_asked_to_wait_for_more_then_clients_share_a_run_and_get_their_own(tmp_path: Path) -> None:
    folder = models.identity(tmp_path / "m", "echo", {"x": "float32"})
    header = {"op": "offer", "component": "c", "version": "1.0.0", "artifacts": str(folder)}
    header["settings"] = {"batching": {"maxRows": 4, "waitMilliseconds": 1000}}
    with parts.device() as device:
        device.start_agent()
        assert parts.ask(device, header)["ok"] is True
        found: dict[int, float] = {}

        def ask(number: int) -> None:
            client = model_client.Client(str(device.socket))
            answer = client.predict("echo", {"x": np.array([number], np.float32)}, deadline_s=WAIT_S)
            found[number] = float(answer.outputs["x_out"][0])
            client.close()

        with futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        figures = parts.ask(device, {"op": "list"})["figures"]["echo"]

    assert found == {number: float(number) for number in range(8)}
    assert figures["count"] == 8
    assert figures["joined"] >= 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"maxRows": 1}, "maxRows is 1, it must be a number from 2 to 4096"),
        ({"maxRows": True}, "maxRows is True"),
        ({"waitMilliseconds": -1}, "waitMilliseconds is -1, it must be from 0 to 1000"),
        ([], "batching must be an object"),
    ],
)
def test_settings_when_batching_makes_no_sense_then_named(given: Any, why: str) -> None:
    with pytest.raises(agent_settings.SettingsError, match=why):
        agent_settings.read({"batching": given})


def test_settings_when_there_is_no_batching_then_their_text_is_that_of_before() -> None:
    asked = agent_settings.read({"batching": {"waitMilliseconds": 5}})

    assert "batching" not in agent_settings.text(agent_settings.DEFAULT)
    assert agent_settings.from_text(agent_settings.text(asked)) == asked


def test_model_when_its_rows_are_fixed_then_batching_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with parts.device() as device:
        device.start_agent()

        def fixed(described: dict[str, Any]) -> None:
            described["inputs"][0]["shape"] = [1, 2]

        folder = parts.changed_model(tmp_path / "m", fixed)
        done = device.hand_over("offer", "1.1.0", "--artifacts", folder, "--settings", '{"batching": {"maxRows": 8}}')

    assert done.returncode == 1
    assert "export it with a dynamic first dimension" in done.stderr
    assert not agent_batches.is_possible(SimpleNamespace(inputs=[SimpleNamespace(shape=())], outputs=[]))
