"""Replay of stored captures: the newest inputs an alias really had, run through the offered and the serving model.

    "replay": {"records": 32, "minimum": 0.9, "measure", "tolerance", "output", "detections" (agent_agreement.py)}

in the model's settings asks for it. Captures are read from stores in the layout of agent_capture.py, the newest unit and the
last line first, while others append and remove: what is half or gone is passed over.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_agreement
import agent_check
import agent_engine
import agent_guard
import numpy as np

Array = np.ndarray[Any, Any]
RECORDS_LIMIT = 10_000
_UNIT_LIMIT_BYTES = 256 * 1024 * 1024
_FOLDERS = 5  # <model>/YYYY/MM/DD/HH
_CONTENT = re.compile(r"Tensor\[(\w+); ?([\d, ]*)\]")


_NOT_BOTH = (
    "captured requests cannot be replayed: the serving model is not in memory beside the new one; give both room "
    "(memoryBytes), ask for swap: spill, or offer it without replay"
)


@dataclass(frozen=True)
class Terms:
    """`records` newest captures, of which the share `minimum` must agree by `measure`."""

    records: int
    minimum: float
    measure: agent_agreement.Measure


@dataclass(frozen=True)
class Outcome:
    """How a replay went; `first` says why the newest one that does not agree does not."""

    records: int
    agreed: int
    skipped: int  # their inputs are not those of these models
    first: str

    def line(self, terms: Terms) -> str:
        """For people."""
        skipped = f", {self.skipped} do not fit" if self.skipped else ""
        return f"{self.agreed} of {self.records} captured requests agree by {terms.measure.kind}{skipped}"


def read(given: Mapping[str, Any]) -> Terms | None:
    """The terms in `replay` of a model's settings, None for no replay. Raises agent_settings.SettingsError."""
    if not given:
        return None
    records = agent_agreement.number(given, "records", 32, "replay", 1, RECORDS_LIMIT)
    minimum = agent_agreement.number(given, "minimum", 0.9, "replay", 0, 1)
    return Terms(int(records), minimum, agent_agreement.read(given, "replay"))


def run(terms: Terms, roots: Sequence[Path], alias: str, new: Any, serving: Any, until: float) -> Outcome | None:
    """Compares up to `terms.records` captures before `until` (time.monotonic()); None if the time was too short for them.

    `new` and `serving` have `manifest` and `predict`. Captures that the serving model cannot answer are skipped. Raises
    agent_check.RefusedError if there are captures and the serving model is not in memory beside the new one.
    """
    agreed, skipped, first, compared = 0, 0, "", 0
    for inputs in newest(roots, alias, serving.manifest.inputs):
        if compared >= terms.records:
            break
        if time.monotonic() >= until:
            return None
        try:
            want = serving.predict(inputs) if inputs else {}
        except (agent_check.InputError, agent_engine.NotReadyError):
            want = {}
        except agent_guard.GoneError as error:
            if not compared:
                raise agent_check.RefusedError(_NOT_BOTH, "REPLAY_IMPOSSIBLE") from error
            break  # it had to leave the memory for the new one
        if not want:
            skipped += 1
            continue
        compared += 1
        why = _compare(terms.measure, new, inputs, want)
        agreed += not why
        first = first or why
    return Outcome(compared, agreed, skipped, first)


def newest(roots: Sequence[Path], alias: str, declared: Sequence[agent_check.Tensor]) -> Iterator[dict[str, Array]]:
    """The inputs of the alias's captures, the newest first; empty where they are not those that are declared."""
    units = [unit for root in roots for unit in root.glob(f"**/{alias}/*/*/*/*/*.jsonl") if unit.stem.isdigit()]
    for unit in sorted(units, key=lambda path: (path.parts[-_FOLDERS:-1], path.stem), reverse=True):
        for line in reversed(_lines(unit)):
            inputs = _inputs(line, unit.parent)
            fits = inputs.keys() == {each.name for each in declared} and all(
                each.fits(inputs[each.name].dtype.name, inputs[each.name].shape) for each in declared
            )
            yield inputs if fits else {}


def _compare(measure: agent_agreement.Measure, new: Any, inputs: dict[str, Array], want: dict[str, Array]) -> str:
    try:
        return agent_agreement.dispute(measure, want, new.predict(inputs))
    except (agent_check.InputError, agent_engine.NotReadyError) as error:
        return str(error)


def _lines(unit: Path) -> list[bytes]:
    try:
        if unit.stat().st_size > _UNIT_LIMIT_BYTES:
            return []
        data = unit.read_bytes()
    except OSError:
        return []  # the oldest units go at any moment
    return [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def _inputs(line: bytes, folder: Path) -> dict[str, Array]:
    """The tensors in one line; empty if it is damaged, or has none."""
    try:
        items = json.loads(line)["deviceFleetInputs"]
        found = {str(each["name"]): _array(each, folder) for each in items if "Tensor[" in each["observedContentType"]}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return {}
    return found


def _array(item: dict[str, Any], folder: Path) -> Array:
    match = _CONTENT.fullmatch(item["observedContentType"])
    if match is None:
        raise ValueError("it is no tensor")
    dtype = np.dtype(match.group(1)).newbyteorder("<")
    shape = tuple(int(size) for size in match.group(2).split(",") if size.strip())
    if "file" in item:
        path = folder / item["file"]
        if ".." in Path(item["file"]).parts or not path.is_relative_to(folder):
            raise ValueError("its file is elsewhere")
        data = path.read_bytes()
    else:
        data = base64.b64decode(item["data"], validate=True)
    return np.frombuffer(data, dtype=dtype).reshape(shape)
