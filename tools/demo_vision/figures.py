"""Figures of the application's answers (pure): how many, how many failed, how long the longest silence, how quick."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct


class Span(Struct, frozen=True):
    """Answers between two moments; times in ms. `passed` frames the camera showed while the application was busy."""

    answered: int
    failed: int
    passed: int
    longest_gap_ms: float
    versions: dict[str, int]


class Speed(Struct, frozen=True):
    """Latency of one version's answers, from the question to the answer, in ms."""

    count: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


def read(work: Path) -> list[dict[str, Any]]:
    """All lines of answers.jsonl; the last one may be torn."""
    path = work / "answers.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def span(lines: Sequence[dict[str, Any]], begin: float, end: float) -> Span:
    """What was answered between two moments (epoch seconds); a gap that began before `begin` counts whole."""
    before = [line for line in lines if line["at"] <= begin][-1:]
    inside = [line for line in lines if begin < line["at"] <= end]
    answers = [line for line in (*before, *inside) if "failed" not in line]
    versions: dict[str, int] = {}
    for line in inside:
        if "failed" not in line:
            versions[line["version"]] = versions.get(line["version"], 0) + 1
    numbers = [line["number"] for line in (*before, *inside)]
    return Span(
        answered=sum(versions.values()),
        failed=sum("failed" in line for line in inside),
        passed=numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0,
        longest_gap_ms=max((b["at"] - a["at"] for a, b in itertools.pairwise(answers)), default=0.0) * 1000,
        versions=versions,
    )


def speed(lines: Sequence[dict[str, Any]], version: str, after: float = 0.0) -> Speed:
    """Latency of a version's answers after a moment."""
    times = sorted(line["ms"] for line in lines if line.get("version") == version and line["at"] > after)
    if not times:
        return Speed(0, 0.0, 0.0, 0.0)
    return Speed(len(times), times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))], times[-1])
