"""How a model's session is made: one thread and all optimisations, unless model.json says it was measured otherwise.

    "runtime": {…, "session": {"threads": 1, "level": "all" | "extended" | "basic" | "disabled"}}     (optional)

`marram model optimise` writes it for a model that won with other settings: its certificate holds for those only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnxruntime

THREADS_LIMIT = 64
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}


@dataclass(frozen=True)
class Session:
    """`threads` of one call, `level` of graph optimisation."""

    threads: int = 1
    level: str = "all"


DEFAULT = Session()


def read(runtime: Mapping[str, Any]) -> Session:
    """The settings in model.json's `runtime`; raises ValueError."""
    given = runtime.get("session") or {}
    threads, level = given.get("threads", 1), given.get("level", "all")
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= THREADS_LIMIT:
        raise ValueError(f"session: threads is {threads!r}, it must be 1 to {THREADS_LIMIT}")
    if level not in LEVELS:
        raise ValueError(f"session: level is {level!r}, it must be one of {', '.join(LEVELS)}")
    return Session(threads, level)


def opened(session: Session, model: bytes) -> Any:
    """onnxruntime's InferenceSession of a model; raises what that raises, which has no narrower base than Exception."""
    made = onnxruntime.InferenceSession(model, options(session), providers=["CPUExecutionProvider"])
    made._model_bytes = None  # or the file stays in memory as long as the session, for a fallback to other providers
    return made


def options(session: Session) -> Any:
    """onnxruntime's SessionOptions; never more threads than there are cores."""
    made = onnxruntime.SessionOptions()
    # One thread without spinning: two spinning ones cost twice the time on a small board (spec ml.md, section 9).
    made.intra_op_num_threads = min(session.threads, os.cpu_count() or 1)
    made.inter_op_num_threads = 1
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    made.add_session_config_entry("session.inter_op.allow_spinning", "0")
    made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[session.level])
    # What agent_onnx.py looked through is what is read: a file can be both, and onnxruntime would take it for its own format.
    made.add_session_config_entry("session.load_model_format", "ONNX")
    made.log_severity_level = 4  # what fails is told by the exception
    return made
