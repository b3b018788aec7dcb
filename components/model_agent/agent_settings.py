"""Settings a model component hands over with its offer (pure): how it is exchanged, run, tried, captured and watched.

The model's recipe keeps them in its configuration under `model`, and hand_over.py passes them as JSON. Unknown keys are
ignored, so that an older agent takes a newer recipe; a known key with a wrong value refuses the offer.

    {"swap": "overlap" | "replace" | "spill", "gapSeconds": 30, "pinned": false, "isolated": false, "workerMemoryBytes": 0,
     "replaces": "com.example.Old" (takes its alias once that component is gone),
     "hangSeconds": 10 (absent: agent_runs.py decides),
     "replay": {...} (agent_replay.py), "trial": {...} (agent_trial_rules.py), "capture": {...} (agent_sampling.py),
     "drift": {...} (agent_drift.py), "batching": {"maxRows": 32, "waitMilliseconds": 0} (agent_batches.py; absent: none)}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SWAPS = ("overlap", "replace", "spill")


class SettingsError(ValueError):
    """A setting has a value that means nothing; the message names it and what is allowed."""


@dataclass(frozen=True)
class Batching:
    """Requests are joined to runs of at most `max_rows`; `wait_s` is for more to come though a core is free."""

    max_rows: int
    wait_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    """`gap_s` bounds how long a `replace` may leave the alias unanswered before the old model must be back.

    `pinned` models are never evicted; `isolated` ones run in a process of their own (agent_isolated.py), which may allocate
    `worker_memory_bytes` (0: no bound). A request that computes for `hang_s` (0: nobody said) is ended. The four sections are
    read by the modules they are for, which raise SettingsError, too.
    """

    swap: str = "overlap"
    gap_s: float = 30.0
    pinned: bool = False
    isolated: bool = False
    worker_memory_bytes: int = 0
    trial: Mapping[str, Any] = field(default_factory=dict)
    capture: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    replay: Mapping[str, Any] = field(default_factory=dict)
    batching: Batching | None = None
    hang_s: float = 0.0
    replaces: str = ""  # the component

    @property
    def run(self) -> tuple[Any, ...]:
        """What a model that is in memory already cannot take on."""
        return self.isolated, self.hang_s, self.worker_memory_bytes if self.isolated else 0

    def joins_more(self, than: Settings) -> bool:
        """Whether more rows may be joined: whether they can is to be judged first (agent_rows.py)."""
        mine, known = (each.batching.max_rows if each.batching else 0 for each in (self, than))
        return mine > known

    def becomes(self, other: Settings) -> bool:
        """Whether a model in memory with these can go on with `other`."""
        return self.run == other.run and not other.joins_more(self)

    def describe(self) -> dict[str, Any]:
        """What `read` takes: sorted by key, so that equal settings are equal text."""
        batching = self.batching
        joined = {"maxRows": batching.max_rows, "waitMilliseconds": batching.wait_s * 1000} if batching else None
        return {
            **({"batching": joined} if joined else {}),  # absent: older texts stay equal
            **({"hangSeconds": self.hang_s} if self.hang_s else {}),
            **({"replaces": self.replaces} if self.replaces else {}),
            "capture": self.capture,
            "drift": self.drift,
            "gapSeconds": self.gap_s,
            "isolated": self.isolated,
            "pinned": self.pinned,
            "replay": self.replay,
            "swap": self.swap,
            "trial": self.trial,
            "workerMemoryBytes": self.worker_memory_bytes,
        }


DEFAULT = Settings()


def read(given: Any) -> Settings:
    """Raises SettingsError."""
    if not isinstance(given, Mapping):
        raise SettingsError("settings must be an object")
    gap_s = given.get("gapSeconds", 30.0)
    if isinstance(gap_s, bool) or not isinstance(gap_s, int | float) or not 0 < gap_s <= 3600:
        raise SettingsError(f"settings: gapSeconds is {gap_s!r}, it must be a number of seconds up to 3600")
    hang_s = given.get("hangSeconds", 0.0)
    if isinstance(hang_s, bool) or not isinstance(hang_s, int | float) or not (hang_s == 0 or 0.1 <= hang_s <= 60):
        raise SettingsError(f"settings: hangSeconds is {hang_s!r}, it must be a number of seconds from 0.1 to 60")
    swap = given.get("swap", "overlap")
    if swap not in SWAPS:
        raise SettingsError(f"settings: swap is {swap!r}, it must be one of {', '.join(SWAPS)}")
    memory = given.get("workerMemoryBytes", 0)
    if isinstance(memory, bool) or not isinstance(memory, int) or not 0 <= memory < 1 << 63:
        raise SettingsError(f"settings: workerMemoryBytes is {memory!r}, it must be a number of bytes, 0 for no bound")
    replaces = given.get("replaces", "")
    if not isinstance(replaces, str) or len(replaces) > 128:
        raise SettingsError(f"settings: replaces is {str(replaces)[:200]!r}, it must be the name of a component")
    flags = {name: given.get(name, False) for name in ("pinned", "isolated")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise SettingsError(f"settings: {name} is {value!r}, it must be true or false")
    sections: dict[str, Mapping[str, Any]] = {
        name: given.get(name) or {} for name in ("trial", "capture", "drift", "replay")
    }
    for name, section in sections.items():
        if not isinstance(section, Mapping):
            raise SettingsError(f"settings: {name} must be an object")
    return Settings(
        swap=swap,
        gap_s=float(gap_s),
        worker_memory_bytes=memory,
        pinned=flags["pinned"],
        isolated=flags["isolated"],
        batching=_batching(given.get("batching")),
        hang_s=float(hang_s),
        replaces=replaces,
        **sections,
    )


def _batching(given: Any) -> Batching | None:
    if given is None or given == {}:
        return None
    if not isinstance(given, Mapping):
        raise SettingsError("settings: batching must be an object")
    rows, wait_ms = given.get("maxRows", 32), given.get("waitMilliseconds", 0)
    if isinstance(rows, bool) or not isinstance(rows, int) or not 2 <= rows <= 4096:
        raise SettingsError(f"settings: batching.maxRows is {rows!r}, it must be a number from 2 to 4096")
    if isinstance(wait_ms, bool) or not isinstance(wait_ms, int | float) or not 0 <= wait_ms <= 1000:
        raise SettingsError(f"settings: batching.waitMilliseconds is {wait_ms!r}, it must be from 0 to 1000")
    return Batching(rows, wait_ms / 1000)


def text(settings: Settings) -> str:
    """One canonical line, for keys of verdicts and for the store."""
    return json.dumps(settings.describe(), sort_keys=True, separators=(",", ":"))


def from_text(given: str) -> Settings:
    """What `text` made; an empty text is the default. Raises SettingsError."""
    try:
        return read(json.loads(given or "{}"))
    except ValueError as error:
        raise SettingsError(f"settings cannot be read: {error}") from error
