from __future__ import annotations

import os
from pathlib import Path

import agent_session
import onnxruntime
import pytest

from tests.components import parts


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


def test_options_when_the_bytes_are_of_onnxruntimes_own_format_then_they_are_not_loaded(tmp_path: Path) -> None:
    """They can be made to look like a harmless ONNX model to whoever looks for external data and foreign operators."""
    saving = onnxruntime.SessionOptions()
    saving.optimized_model_filepath = str(tmp_path / "model.ort")
    saving.add_session_config_entry("session.save_model_format", "ORT")
    source = parts.MODEL / "1.1.0" / "power_curve.onnx"
    onnxruntime.InferenceSession(source, saving, providers=["CPUExecutionProvider"])
    data = (tmp_path / "model.ort").read_bytes()
    assert data[4:8] == b"ORTM"

    options = agent_session.options(agent_session.DEFAULT)

    assert onnxruntime.InferenceSession(source.read_bytes(), options, providers=["CPUExecutionProvider"]).get_inputs()
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
