"""Which answered requests are captured (pure): `capture` of a model's settings, and the record that becomes of one.

    {"rate": 0.01,                                       share of all requests, 0 to 1
     "lowConfidence": {"output": "scores", "below": 0.5},   requests whose confidence is below
     "disagreement": true,                               requests a trial's new version answers differently (agent_trials.py)
     "onRequest": true,                                  the last request, when somebody asks for it (op `capture`)
     "perMinute": 60,                                    bound over all of these but onRequest
     "inputs": true, "outputs": true}                    what is kept of a request

Sampling by rate is a function of alias and running number (splitmix64), not of chance: the same stream gives the same sample,
and no period of the stream falls in step with it. The confidence of a request is the largest value of the output; of an output
with several axes, that of each item along the first one, and the least of those. No number (NaN) is no confidence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import agent_capture_files
import agent_settings
import numpy as np

Array = np.ndarray[Any, Any]
RATE, LOW_CONFIDENCE, DISAGREEMENT, ON_REQUEST = "rate", "lowConfidence", "disagreement", "onRequest"
PER_MINUTE = 60
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Rules:
    """`low_output` empty: confidence does not matter."""

    rate: float = 0.0
    low_output: str = ""
    low_below: float = 0.0
    disagreement: bool = False
    on_request: bool = False
    per_minute: int = PER_MINUTE
    inputs: bool = True
    outputs: bool = True

    @property
    def nothing(self) -> bool:
        """Whether no request can ever be captured."""
        return not (self.rate or self.low_output or self.disagreement or self.on_request)


class PerMinute:
    """Counts within whole minutes of the time it is given."""

    def __init__(self) -> None:
        self._minute = -1
        self._count = 0

    def take(self, limit: int, at: float) -> bool:
        """Whether there is room for one more at `at` (epoch seconds); if so, it is counted."""
        minute = int(at // 60)
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        return self._count <= limit


def read(given: Mapping[str, Any]) -> Rules:
    """Raises agent_settings.SettingsError."""
    rate = _number(given, "rate", 0.0, 0.0, 1.0)
    per_minute = _number(given, "perMinute", float(PER_MINUTE), 0.0, 1e6)
    low = given.get("lowConfidence") or {}
    if not isinstance(low, Mapping):
        raise agent_settings.SettingsError("settings: capture.lowConfidence must be an object with output and below")
    output = low.get("output", "")
    if not isinstance(output, str) or (low and not output):
        raise agent_settings.SettingsError("settings: capture.lowConfidence.output must name an output of the model")
    flags = {
        name: _flag(given, key, default)
        for name, key, default in (
            ("disagreement", "disagreement", False),
            ("on_request", "onRequest", False),
            ("inputs", "inputs", True),
            ("outputs", "outputs", True),
        )
    }
    if not (flags["inputs"] or flags["outputs"]):
        raise agent_settings.SettingsError("settings: capture keeps neither inputs nor outputs; set one to true")
    below = _number(low, "below", 0.5, -math.inf, math.inf)
    return Rules(rate=rate, low_output=output, low_below=below, per_minute=int(per_minute), **flags)


def chosen(alias: str, number: int, rate: float) -> bool:
    """Whether request `number` of the alias belongs to the sample of this rate."""
    if rate <= 0.0:
        return False
    mixed = (zlib.crc32(alias.encode()) + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) < rate * 2.0**64


def confidence(output: Array) -> float:
    """Of one answer; minus infinity for an empty output and for what is no number."""
    if not output.size:
        return -math.inf
    items = output.reshape(len(output), -1).max(axis=1) if output.ndim > 1 else output.reshape(1, -1).max(axis=1)
    least = float(items.min())
    return least if not math.isnan(least) else -math.inf


def is_low(rules: Rules, outputs: Mapping[str, Array]) -> bool:
    """Whether this answer is captured for its confidence."""
    return rules.low_output in outputs and confidence(outputs[rules.low_output]) < rules.low_below


def items(arrays: Mapping[str, Array]) -> tuple[agent_capture_files.Item, ...]:
    """The arrays as a capture keeps them: C order, little-endian."""
    return tuple(
        agent_capture_files.Item(
            name,
            f"Tensor[{array.dtype.name}; {', '.join(map(str, array.shape))}]",
            np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes(),
        )
        for name, array in arrays.items()
    )


def _number(given: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise agent_settings.SettingsError(f"settings: capture.{key} is {value!r}, it must be {least:g} to {most:g}")
    return float(value)


def _flag(given: Mapping[str, Any], key: str, default: bool) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise agent_settings.SettingsError(f"settings: capture.{key} is {value!r}, it must be true or false")
    return value
