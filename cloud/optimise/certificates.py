"""certificate.json: what was measured about the winner, for the model agent to judge (its format: agent_certificate.py)."""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.optimise import gate, outcomes

# Of a CPU, what changes how integers and halves are computed; the agent has the same list (tests compare them).
FEATURES = (
    *("avx", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8"),
    *("amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, tuple[str, ...]]:
    """(class, features) of this machine, which did the measuring."""
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    has = set(line[1].split()) if line else set()
    kind = f"{platform.system()}/{platform.machine()}".lower()
    return kind, tuple(one for one in FEATURES if one in has)


def write(
    outcome: outcomes.Outcome,
    figures: outcomes.Figures,
    bounds: gate.Bounds,
    digests: Mapping[str, str],
    issued_at: datetime.datetime,
) -> bytes:
    """The certificate's bytes. `digests` are SHA-256 in hex of: model, source, calibration, evaluation."""
    accuracy, (kind, features) = outcome.accuracy, machine()
    assert accuracy is not None, "an accepted candidate was compared"
    content: dict[str, Any] = {
        "format": 1,
        "model": {"sha256": digests["model"], "sourceSha256": digests["source"]},
        "runtime": {"name": outcome.runtime, "version": outcome.runtime_version, "provider": outcome.provider},
        "target": {"class": kind, "features": list(features)},
        "precision": outcome.effective,
        "data": {
            "calibrationSha256": digests["calibration"],
            "evaluationSha256": digests["evaluation"],
            "evaluationSamples": accuracy.samples,
        },
        "metric": {
            "name": figures.metric,
            "against": figures.against,
            "source": accuracy.source,
            "candidate": accuracy.candidate,
        },
        "interval": {
            "low": accuracy.low,
            "high": accuracy.high,
            "confidence": accuracy.confidence,
            "method": accuracy.method,
        },
        "margin": bounds.margin,
        "measured": _measured(outcome, figures),
        "issuedAt": issued_at.astimezone(datetime.UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _measured(outcome: outcomes.Outcome, figures: outcomes.Figures) -> dict[str, Any]:
    """Figures for people."""
    assert outcome.accuracy is not None, "an accepted candidate was compared"
    return {
        "form": outcome.form,
        "latencyMs": round(outcome.latency_ms, 3),
        "p99Ms": round(outcome.p99_ms, 3),
        "sourceLatencyMs": round(figures.source.latency_ms, 3),
        "memoryBytes": outcome.memory_bytes,
        "loadMs": outcome.load_ms,
        "sizeBytes": outcome.size_bytes,
        "threads": outcome.settings.threads,
        "worstClassRecallDrop": outcome.accuracy.worst_class_drop,
    }
