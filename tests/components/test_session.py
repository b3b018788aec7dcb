from __future__ import annotations

import os

import agent_session
import onnxruntime
import pytest


def test_read_when_model_json_says_nothing_then_one_thread_and_all_optimisations() -> None:
    found = agent_session.options(agent_session.read({"name": "onnxruntime"}))

    assert found.intra_op_num_threads == 1
    assert found.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_read_when_it_was_measured_otherwise_then_so_and_with_no_more_threads_than_cores() -> None:
    found = agent_session.options(agent_session.read({"session": {"threads": 64, "level": "basic"}}))

    assert found.intra_op_num_threads == min(64, os.cpu_count() or 1)
    assert found.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC


@pytest.mark.parametrize(
    ("session", "told"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"threads": "2"}, "threads is '2'"),
        ({"level": "most"}, "level is 'most'"),
    ],
)
def test_read_when_a_value_means_nothing_then_it_is_named(session: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        agent_session.read({"session": session})
