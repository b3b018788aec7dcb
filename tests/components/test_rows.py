"""Batching is for models whose rows do not know of each other: what shows it, what it says, and when it is looked at."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_registry
import agent_rows
import agent_settings
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.components import models, parts

C = "com.example.Rows"
MEAN = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
LARGEST = [helper.make_node("ReduceMax", ["x"], ["m"], axes=[0]), helper.make_node("Div", ["x", "m"], ["y"])]
SUMS = [helper.make_node("CumSum", ["x", "first"], ["y"])]  # only the first row is as alone
ONLY_SIX = [helper.make_node("Slice", ["x", "zero", "six"], ["y"])]  # as long as there are no more
TWICE = [helper.make_node("Add", ["x", "x"], ["y"])]
CONSTANTS = {"first": np.array(0, np.int64), "zero": np.array([0], np.int64), "six": np.array([6], np.int64)}
BATCHING = agent_settings.read({"batching": {"maxRows": 16}})


def made(folder: Path, nodes: list[Any], rows: list[list[float]], expected: list[list[float]], number: int = 1) -> Path:
    """A model in `folder` from x [n, 3] to y [n, 3], with one golden sample."""
    folder.mkdir(parents=True)
    named = {name for node in nodes for name in node.input}
    kept = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items() if name in named]
    tensors = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}n", 3])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, f"rows{number}", *tensors, kept)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (folder / "rows.onnx").write_bytes(data)
    described = {
        "name": "rows",
        "version": f"{number}.0.0",
        "file": "rows.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": {"name": "onnxruntime"},
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}],
        "golden": {
            "tolerance": {"absolute": 1e-4, "relative": 0},
            "samples": [{"inputs": {"x": rows}, "outputs": {"y": expected}}],
        },
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def loaded(folder: Path) -> agent_check.Model:
    described = (folder / "model.json").read_bytes()
    manifest = agent_check.read_manifest(described)
    return agent_check.load(manifest, (folder / manifest.file).read_bytes())


TOGETHER = [
    pytest.param(MEAN, [[1, 2, 4]], [[0, 0, 0]], r"\d+ of \d+ golden rows .* golden sample 1, row \d", id="mean"),
    pytest.param(LARGEST, [[1, 2, 4]], [[1, 1, 1]], "are answered otherwise beside others than alone", id="largest"),
    pytest.param(SUMS, [[1, 2, 4]], [[1, 2, 4]], r"row 2 of 2: y is 8, alone 4 \+- 0.0001", id="sums"),
    pytest.param(ONLY_SIX, [[1, 2, 4]], [[1, 2, 4]], r"output y has shape \[6, 3\] for 8 rows", id="only six"),
    pytest.param(MEAN, [[1, 2, 4], [3, 2, 0]], [[-1, 0, 2], [1, 0, -2]], "answered otherwise", id="two rows"),
]


@pytest.mark.parametrize(("nodes", "rows", "expected", "words"), TOGETHER)
def test_check_when_rows_depend_on_each_other_then_refused_with_the_figures(
    tmp_path: Path, nodes: list[Any], rows: list[list[float]], expected: list[list[float]], words: str
) -> None:
    model = loaded(made(tmp_path / "m", nodes, rows, expected))

    with pytest.raises(agent_check.RefusedError, match=words) as refused:
        agent_rows.check(model, 16)

    assert refused.value.code == "NOT_BATCHABLE"


@pytest.mark.parametrize("max_rows", [2, 3, 32, 4096])
def test_check_when_rows_are_for_themselves_then_the_figures(tmp_path: Path, max_rows: int) -> None:
    for folder in (models.weighty(tmp_path / "m", "m", 3, 1), parts.MODEL / "1.1.0"):
        assert "joined golden rows are answered as alone" in agent_rows.check(loaded(folder), max_rows)


def test_check_when_the_inputs_have_rows_of_their_own_number_then_nothing_shows_that_they_can_be_joined(
    tmp_path: Path,
) -> None:
    folder = models.identity(tmp_path / "m", "m", {"a": "float32", "b": "float32"})
    described = json.loads((folder / "model.json").read_text())
    described["golden"]["samples"][0] = {"inputs": {"a": [1], "b": [1, 2]}, "outputs": {"a_out": [1], "b_out": [1, 2]}}
    (folder / "model.json").write_text(json.dumps(described))

    with pytest.raises(agent_check.RefusedError, match="nothing would show") as refused:
        agent_rows.check(loaded(folder), 8)

    assert refused.value.code == "NOT_BATCHABLE"


@given(st.integers(1, 8), st.integers(0, 4), st.integers(2, 64))
def test_plan_then_each_golden_row_is_joined_with_itself_others_and_in_every_count(
    golden: int, more: int, limit: int
) -> None:
    orders = list(agent_rows.plan(golden, golden + more, limit))

    assert {len(order) for order in orders} >= {2, limit}
    assert all(2 <= len(order) <= limit for order in orders)
    assert {place for order in orders if len(order) == limit for place in order} == set(range(golden + more))
    assert all(order[::-1] in orders for order in orders)
    assert (0, 0) in orders
    if golden + more > 1:
        assert any(len(set(order)) > 1 for order in orders)


class Agent:
    """The table and the models of an agent, without its doors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._registry = agent_registry.Registry.open(folder / "store")
        self.aliases = agent_aliases.Aliases(self._registry, 600)

    def offer(self, number: int, nodes: list[Any], settings: agent_settings.Settings) -> str:
        folder = self.folder / f"offered-{number}"
        if not folder.exists():
            expected = [[2, 4, 8]] if nodes is TWICE else [[0, 0, 0]]
            made(folder, nodes, [[1, 2, 4]], expected, number)
        return self.aliases.offer(C, f"{number}.0.0", folder, settings)

    @contextlib.contextmanager
    def refuses(self, code: str) -> Iterator[pytest.ExceptionInfo[agent_check.RefusedError]]:
        with pytest.raises(agent_check.RefusedError) as caught:
            yield caught
        assert caught.value.code == code

    def max_rows(self) -> int:
        """How many rows may be joined now; that alias answers is looked at, too."""
        serving = self.aliases.serving("rows")
        assert serving is not None
        assert serving.model.predict({"x": np.ones((1, 3), np.float32)})["y"].shape == (1, 3)
        return serving.settings.batching.max_rows if serving.settings.batching else 0

    def close(self) -> None:
        self._registry.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made_agent = Agent(tmp_path)
    yield made_agent
    made_agent.close()


def test_offer_when_the_model_serves_already_and_is_to_be_joined_then_looked_at(agent: Agent) -> None:
    agent.offer(1, MEAN, agent_settings.DEFAULT)

    with agent.refuses("NOT_BATCHABLE") as first:
        agent.offer(1, MEAN, BATCHING)
    with agent.refuses("NOT_BATCHABLE") as again:
        agent.offer(1, MEAN, BATCHING)

    assert "rows still answers with com.example.Rows 1.0.0" in str(first.value)
    assert "(decided earlier)" in str(again.value)
    assert agent.max_rows() == 0


def test_offer_when_its_rows_are_for_themselves_then_joined_and_fewer_rows_are_not_looked_at_again(
    agent: Agent,
) -> None:
    agent.offer(1, TWICE, agent_settings.DEFAULT)

    said = agent.offer(1, TWICE, BATCHING)

    assert "golden rows are answered as alone" in said
    assert agent.max_rows() == 16
    assert agent.offer(1, TWICE, agent_settings.read({"batching": {"maxRows": 8}})).startswith("rows already answers")
    assert agent.max_rows() == 8
    assert "golden rows are answered as alone" in agent.offer(1, TWICE, BATCHING)
    assert agent.offer(1, TWICE, agent_settings.DEFAULT).startswith("rows already answers")
    assert agent.max_rows() == 0


def test_offer_when_the_model_runs_in_a_process_of_its_own_then_looked_at(agent: Agent) -> None:
    isolated = agent_settings.read({"batching": {"maxRows": 4}, "isolated": True})

    assert "golden rows are answered as alone" in agent.offer(1, TWICE, isolated)
    with agent.refuses("NOT_BATCHABLE"):
        agent.offer(2, MEAN, isolated)

    assert agent.max_rows() == 4
    agent.aliases.withdraw(C, "2.0.0")


def test_offer_when_it_is_held_back_and_is_to_be_joined_then_told_to_release_it_first(agent: Agent) -> None:
    agent.offer(1, TWICE, agent_settings.DEFAULT)
    agent.offer(2, MEAN, agent_settings.DEFAULT)
    agent.aliases.hold("rows", "drift", "psi of x is 0.40")

    with agent.refuses("FAILED_PRECONDITION") as refused:
        agent.offer(2, MEAN, BATCHING)

    assert "release it first (marram model release rows)" in str(refused.value)
    agent.aliases.release_hold("rows")
    assert agent.max_rows() == 0
