"""What came of every frame: answers.jsonl and counters.json in the work folder.

answers.jsonl has one line for each request, `{"number", "at", "ms", "version", "tries", "objects"}`, or `{"number", "at",
"failed": why}`; `at` is epoch seconds of the answer, `ms` from the question to it. Above LIMIT_BYTES it becomes
answers.old.jsonl. counters.json is the sum, replaced as a whole.
"""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path
from typing import Any

LIMIT_BYTES = 16 * 1024 * 1024
COUNTERS_EVERY_S = 0.5


class Record:
    """Counts and keeps; for one thread."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._facts = facts
        self._lines = (folder / "answers.jsonl").open("a", buffering=1)
        self._told_at = 0.0
        self.answered: collections.Counter[str] = collections.Counter()
        self.failed = 0

    def answer(self, number: int, took_ms: float, version: str, tries: int, objects: int) -> None:
        self.answered[version] += 1
        line = {"number": number, "ms": round(took_ms, 2), "version": version, "tries": tries, "objects": objects}
        self._write(line)

    def failure(self, number: int, why: str) -> None:
        self.failed += 1
        self._write({"number": number, "failed": why})

    def tell(self, **figures: Any) -> None:
        """Writes the counters, if the last time is long enough ago."""
        if time.monotonic() - self._told_at < COUNTERS_EVERY_S:
            return
        self._told_at = time.monotonic()
        counted = {"answered": sum(self.answered.values()), "failed": self.failed, "versions": dict(self.answered)}
        new = self._folder / "counters.json.new"
        new.write_text(json.dumps({**self._facts, "at": round(time.time(), 3), **counted, **figures}, indent=1) + "\n")
        new.replace(self._folder / "counters.json")

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.write(json.dumps({"at": round(time.time(), 4), **line}) + "\n")
        if self._lines.tell() > LIMIT_BYTES:
            self._lines.close()
            (self._folder / "answers.jsonl").replace(self._folder / "answers.old.jsonl")
            self._lines = (self._folder / "answers.jsonl").open("a", buffering=1)
