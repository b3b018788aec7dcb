"""Decides whether a model fits the memory budget, and at whose cost (pure).

The budget is for models alone, each counted by what loading it took. A model that was never loaded is judged by an estimate.
Never out for others: pinned models, what answers for the alias itself, and both sides of a trial.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_FILE_BYTE = 4  # a session with its weights and work space, against the file (spec ml.md 9)
LEAST_PER_FIVE_BYTES = 6  # of large weights, which are kept as they are in the file
LEAST_BYTES = 1024 * 1024
WORKER_BYTES = 46 * 1024 * 1024  # a process of its own (spec ml.md 9)
_MB = 1_000_000


class Way(enum.StrEnum):
    """How room may be made when old and new do not fit together; the first three are a model's `swap`."""

    OVERLAP = "overlap"  # not at all
    REPLACE = "replace"  # the old one goes first
    SPILL = "spill"  # others go
    EITHER = "either"  # others go, and if that is not enough the old one first: the way back of a hold


class Action(enum.StrEnum):
    """What is to be done."""

    LOAD = "load"
    REPLACE = "replace"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Slot:
    """One model in memory. `safe`: it may not go, being part of a trial or of an exchange, or about to go anyway."""

    alias: str
    version: str
    memory_bytes: int
    used_at: float
    pinned: bool = False
    safe: bool = False


@dataclass(frozen=True)
class Need:
    """The model that wants in; `measured` says whether `memory_bytes` is known from a load or an estimate."""

    alias: str
    version: str
    memory_bytes: int
    measured: bool


@dataclass(frozen=True)
class Decision:
    """What to do, which aliases leave before it, and the figures in words."""

    action: Action
    victims: tuple[str, ...]
    figures: str


def estimate(file_bytes: int, isolated: bool) -> int:
    """What a model that was never loaded is expected to take."""
    return max(file_bytes * BYTES_PER_FILE_BYTE, LEAST_BYTES) + (WORKER_BYTES if isolated else 0)


def least(file_bytes: int, isolated: bool) -> int:
    """What it takes in the best case: if not even that fits, loading it would tell nothing new."""
    return max(file_bytes * LEAST_PER_FIVE_BYTES // 5, LEAST_BYTES) + (WORKER_BYTES if isolated else 0)


def learned(known: int, measured: int) -> int:
    """What a model counts after another load; `known` 0: it is the first.

    A smaller figure counts at once, a larger one by half: what others allocated meanwhile must not keep a model out.
    """
    return measured if not known or measured <= known else (known + measured) // 2


def decide(budget_bytes: int, slots: Sequence[Slot], need: Need, way: Way) -> Decision:
    """`budget_bytes` 0 is no budget. Victims are those not used for longest, and no more than needed."""
    taken = sum(slot.memory_bytes for slot in slots)
    figures = describe(budget_bytes, slots, need)
    over = taken + need.memory_bytes - budget_bytes
    if not budget_bytes or over <= 0:
        return Decision(Action.LOAD, (), figures)
    old = sum(slot.memory_bytes for slot in slots if slot.alias == need.alias and not slot.safe)
    if way is Way.REPLACE and old and over <= old:
        return Decision(Action.REPLACE, (), figures)
    victims: list[str] = []
    if way in (Way.SPILL, Way.EITHER):
        for slot in sorted(slots, key=lambda slot: slot.used_at):
            if over > 0 and not (slot.pinned or slot.safe or slot.alias == need.alias):
                victims.append(slot.alias)
                over -= slot.memory_bytes
    if over <= 0:
        return Decision(Action.LOAD, tuple(victims), figures)
    if way is Way.EITHER and old and over <= old:
        return Decision(Action.REPLACE, tuple(victims), figures)
    return Decision(Action.REFUSE, (), figures)


def describe(budget_bytes: int, slots: Sequence[Slot], need: Need) -> str:
    """The figures of a decision: what it needs, what is taken by whom, what there is."""
    how = "measured" if need.measured else "estimated from its file"
    taken = sum(slot.memory_bytes for slot in slots)
    by = ", ".join(f"{slot.alias} {slot.version} {_mb(slot.memory_bytes)}" for slot in slots)
    return (
        f"it needs {_mb(need.memory_bytes)} ({how}), {_mb(taken)} of {_mb(budget_bytes)} are taken"
        f"{f' ({by})' if by else ''}"
    )


def _mb(size: int) -> str:
    return f"{size / _MB:.1f} MB"
