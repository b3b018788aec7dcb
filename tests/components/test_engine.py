"""The engine: places, fairness, deadlines, figures. Models here are small classes that the test holds in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from types import SimpleNamespace
from typing import Any

import agent_engine
import pytest

FAR = 60.0
WAIT_S = 20.0


class Held:
    """A model that computes until it is let go; `begun` counts down the requests that compute."""

    def __init__(self, name: str, order: list[str] | None = None) -> None:
        self.name = name
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.order = order if order is not None else []
        self.fail = False

    def predict(self, inputs: Any) -> dict[str, Any]:
        self.order.append(self.name)
        self.begun.release()
        assert self.go.wait(WAIT_S)
        if self.fail:
            raise ValueError("no")
        return {"out": inputs}


class World:
    def __init__(self, cores: int = 1, waiting_limit: int = 64) -> None:
        self.models: dict[str, SimpleNamespace] = {}
        self.engine = agent_engine.Engine(self.models.get, cores, waiting_limit)
        self.pool = futures.ThreadPoolExecutor(32)

    def serve(self, alias: str, model: Any, version: str = "1") -> Any:
        self.models[alias] = SimpleNamespace(model=model, component=f"c.{alias}", version=version)
        return model

    def ask(self, alias: str, deadline_s: float = FAR) -> futures.Future[agent_engine.Answer]:
        return self.pool.submit(self.engine.predict, alias, {}, time.monotonic() + deadline_s)

    def until_waiting(self, alias: str, count: int) -> None:
        end = time.monotonic() + WAIT_S
        while self.engine.figures().get(alias, {}).get("waiting") != count:
            assert time.monotonic() < end
            threading.Event().wait(0.002)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for each in made.models.values():
        each.model.go.set()
    made.pool.shutdown()


def test_predict_when_a_place_is_free_then_the_answer_says_who(world: World) -> None:
    world.serve("a", Held("a"), "1.2.0").go.set()

    answer = world.ask("a").result(WAIT_S)

    assert (answer.component, answer.version, answer.outputs) == ("c.a", "1.2.0", {"out": {}})
    figures = world.engine.figures()["a"]
    assert (figures["count"], figures["errors"], figures["waiting"]) == (1, 0, 0)
    assert sum(figures["latency_ms"].values()) == 1


def test_predict_when_nobody_answers_then_not_ready(world: World) -> None:
    with pytest.raises(agent_engine.NotReadyError):
        world.ask("nobody").result(WAIT_S)
    assert world.engine.figures() == {}


def test_cores_when_two_then_two_compute_and_the_third_waits() -> None:
    world = World(cores=2)
    model = world.serve("a", Held("a"))
    asked = [world.ask("a") for _ in range(3)]
    for _ in range(2):
        assert model.begun.acquire(timeout=WAIT_S)
    world.until_waiting("a", 1)
    assert not model.begun.acquire(blocking=False)

    model.go.set()

    assert [one.result(WAIT_S).version for one in asked] == ["1"] * 3
    world.pool.shutdown()


def test_place_when_freed_then_the_alias_that_computed_least_is_next(world: World) -> None:
    """Twenty requests of a greedy alias wait; one of another that comes later goes before them."""
    order: list[str] = []
    greedy, modest = world.serve("greedy", Held("greedy", order)), world.serve("modest", Held("modest", order))
    many = [world.ask("greedy") for _ in range(20)]
    assert greedy.begun.acquire(timeout=WAIT_S)
    world.until_waiting("greedy", 19)
    late = world.ask("modest")
    world.until_waiting("modest", 1)

    modest.go.set()
    greedy.go.set()
    for one in (late, *many):
        one.result(WAIT_S)

    assert order.index("modest") <= 2
    assert order.count("greedy") == 20


def test_deadline_when_it_passes_in_the_queue_then_busy_and_nobody_computes_for_it(world: World) -> None:
    model = world.serve("a", Held("a"))
    first = world.ask("a")
    assert model.begun.acquire(timeout=WAIT_S)

    with pytest.raises(agent_engine.BusyError):
        world.ask("a", deadline_s=0.01).result(WAIT_S)
    model.go.set()
    first.result(WAIT_S)

    assert model.order == ["a"]
    figures = world.engine.figures()["a"]
    assert (figures["refused"], figures["waiting"]) == (1, 0)
    world.ask("a").result(WAIT_S)  # the place is free again


def test_queue_when_full_then_refused_at_once() -> None:
    world = World(waiting_limit=2)
    model = world.serve("a", Held("a"))
    asked = [world.ask("a")]
    assert model.begun.acquire(timeout=WAIT_S)
    asked += [world.ask("a") for _ in range(2)]
    world.until_waiting("a", 2)

    with pytest.raises(agent_engine.BusyError, match="2 requests wait"):
        world.ask("a").result(WAIT_S)
    model.go.set()
    for one in asked:
        one.result(WAIT_S)
    world.pool.shutdown()


def test_model_when_exchanged_while_requests_wait_then_each_answer_is_of_one_version(world: World) -> None:
    old = world.serve("a", Held("a"), "1")
    under_way, waiting = world.ask("a"), world.ask("a")
    assert old.begun.acquire(timeout=WAIT_S)
    world.until_waiting("a", 1)

    world.serve("a", Held("a"), "2").go.set()
    old.go.set()

    assert sorted(one.result(WAIT_S).version for one in (under_way, waiting)) == ["1", "2"]


def test_model_when_it_fails_then_counted_and_the_place_is_free(world: World) -> None:
    model = world.serve("a", Held("a"))
    model.fail = True
    model.go.set()
    with pytest.raises(ValueError, match="no"):
        world.ask("a").result(WAIT_S)
    model.fail = False

    world.ask("a").result(WAIT_S)

    assert world.engine.figures()["a"]["errors"] == 1


def test_quantiles_when_counted_then_bounds_of_the_buckets() -> None:
    figures = agent_engine.Figures()
    figures.latency[0] = 98
    figures.latency[6] = 2
    assert (figures.quantile_ms(0.5), figures.quantile_ms(0.99)) == (0.1, 10.0)
    assert agent_engine.Figures().quantile_ms(0.5) == 0.0
