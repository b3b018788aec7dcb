"""Whether a new model's answer agrees with the serving one's, without labels (pure).

Declared in a trial's or replay's settings:

    {"measure": "equal"}                                   the same bits; a NaN equals a NaN
    {"measure": "close", "tolerance": 0.1}                 |new - serving| <= tolerance everywhere; or, with {"absolute",
                                                           "relative"}, <= absolute + relative * |serving|
    {"measure": "top1", "output": name, "tolerance": 0.0}  the same largest entry along the last axis, in every row; a row
                                                           where the serving model has both within `tolerance` is a tie
    {"measure": "detections", "tolerance": 0.1, "detections": {"coding": "ssd" or "corners", "boxes": name, "scores": name,
     "score": 0.5, "iou": 0.5, "share": 1.0}}              agent_detections.py; `tolerance` is its slack

An answer with other outputs or shapes, or with a number that is none where the serving model has one, never agrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import agent_detections
import agent_settings
import numpy as np

Array = np.ndarray[Any, Any]
EQUAL, CLOSE, TOP1, DETECTIONS = "equal", "close", "top1", "detections"
MEASURES = (EQUAL, CLOSE, TOP1, DETECTIONS)
_SLACK = 0.1  # of detections, where no tolerance is given


@dataclass(frozen=True)
class Measure:
    """A measure with its parameters; `output` empty: the model's first."""

    kind: str = EQUAL
    absolute: float = 0.0
    relative: float = 0.0
    output: str = ""
    detections: agent_detections.Rule = field(default_factory=agent_detections.Rule)


def read(given: Mapping[str, Any], where: str) -> Measure:
    """The measure in a section of settings called `where`. Raises agent_settings.SettingsError."""
    kind = given.get("measure", EQUAL)
    if kind not in MEASURES:
        raise agent_settings.SettingsError(
            f"settings: {where}.measure is {kind!r}, it must be one of {', '.join(MEASURES)}"
        )
    default = _SLACK if kind == DETECTIONS else 0.0
    tolerance = given.get("tolerance", default)
    parts: Mapping[str, Any] = tolerance if isinstance(tolerance, Mapping) else {"absolute": tolerance}
    absolute = number(parts, "absolute", 0.0, f"{where}.tolerance", 0.0)
    relative = number(parts, "relative", 0.0, f"{where}.tolerance", 0.0)
    slack = absolute if kind == DETECTIONS else _SLACK
    rule = _rule(given.get("detections") or {}, slack, where)
    return Measure(kind, absolute, relative, text(given, "output", where), rule)


def dispute(measure: Measure, serving: Mapping[str, Array], new: Mapping[str, Array]) -> str:
    """Why the two answers do not agree, "" if they do."""
    for name, want in serving.items():
        got = new.get(name)
        if got is None or got.shape != want.shape:
            return f"{name} is {list(want.shape)}, the new model answers {None if got is None else list(got.shape)}"
        if "f" == got.dtype.kind == want.dtype.kind and (np.isfinite(want) & ~np.isfinite(got)).any():
            return f"{name} has a number that is none (NaN or infinite)"
    match measure.kind:
        case "close":
            return _far(measure, serving, new)
        case "top1":
            return _other_top(measure, serving, new)
        case "detections":
            return _other_objects(measure.detections, serving, new)
        case _:
            return _unequal(serving, new)


def number(
    given: Mapping[str, Any], key: str, default: float, where: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """A number of a section, from `low` to `high`. Raises agent_settings.SettingsError."""
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        bounds = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise agent_settings.SettingsError(f"settings: {where}.{key} is {value!r}, it must be a number of {bounds}")
    return float(value)


def text(given: Mapping[str, Any], key: str, where: str) -> str:
    """A text of a section, empty if it is absent. Raises agent_settings.SettingsError."""
    value = given.get(key, "")
    if not isinstance(value, str):
        raise agent_settings.SettingsError(f"settings: {where}.{key} must be a text")
    return value


def _rule(given: Any, slack: float, where: str) -> agent_detections.Rule:
    where = f"{where}.detections"
    if not isinstance(given, Mapping):
        raise agent_settings.SettingsError(f"settings: {where} must be an object")
    coding = given.get("coding", agent_detections.SSD)
    if coding not in (agent_detections.SSD, agent_detections.CORNERS):
        raise agent_settings.SettingsError(f"settings: {where}.coding is {coding!r}, it must be ssd or corners")
    return agent_detections.Rule(
        coding,
        text(given, "boxes", where),
        text(given, "scores", where),
        score=number(given, "score", 0.5, where, 0.0, 1.0),
        slack=slack,
        iou=number(given, "iou", 0.5, where, 0.0, 1.0),
        share=number(given, "share", 1.0, where, 0.0, 1.0),
    )


def _unequal(serving: Mapping[str, Array], new: Mapping[str, Array]) -> str:
    for name, want in serving.items():
        got = new[name]
        if got.dtype != want.dtype or not np.array_equal(got, want, equal_nan=want.dtype.kind == "f"):
            return f"{name} is not equal"
    return ""


def _far(measure: Measure, serving: Mapping[str, Array], new: Mapping[str, Array]) -> str:
    for name, given in serving.items():
        want, got = given.astype(np.float64), new[name].astype(np.float64)
        same = (want == got) | (np.isnan(want) & np.isnan(got))
        with np.errstate(invalid="ignore"):  # infinity less infinity: `same` has it
            excess = np.where(same, 0.0, np.abs(got - want) - measure.absolute - measure.relative * np.abs(want))
        if excess.size and not (excess <= 0.0).all():
            at = np.unravel_index(int(np.nan_to_num(excess, nan=np.inf).argmax()), excess.shape)
            return f"{name} is {got[at]:.6g} where the serving model has {want[at]:.6g}"
    return ""


def _other_top(measure: Measure, serving: Mapping[str, Array], new: Mapping[str, Array]) -> str:
    name = measure.output or next(iter(serving), "")
    if name not in serving or not serving[name].shape or not serving[name].size:
        return f"there is no largest entry in {name or 'an empty answer'}"
    want = serving[name].reshape(-1, serving[name].shape[-1]).astype(np.float64)
    got = new[name].reshape(want.shape).argmax(axis=1)
    rows = np.arange(len(want))
    behind = want.max(axis=1) - want[rows, got]
    # A row of the serving model that is no number has no largest entry either.
    wrong = np.flatnonzero(~(behind <= measure.absolute))
    if not wrong.size:
        return ""
    row = int(wrong[0])
    return f"{name}: the largest entry of row {row} is {int(got[row])}, of the serving model {int(want[row].argmax())}"


def _other_objects(rule: agent_detections.Rule, serving: Mapping[str, Array], new: Mapping[str, Array]) -> str:
    try:
        found = agent_detections.share(rule, serving, new)
    except agent_detections.DetectionsError as error:
        return str(error)
    return "" if found >= rule.share else f"{found:.0%} of the objects are seen by both, {rule.share:.0%} are wanted"
