"""Tells what answers for each alias whenever that changes, and once when the agent starts (agent_report.py, kind `status`).

    {"component", "serving", "desired", "previous", "candidate", "state", "heldBy", "reason"}

`state` is serving, held, trial, or empty for an alias that is gone. A model that left the memory for a while still counts
as serving: it answers when it is asked. Looked at once a second, so what comes and goes within one is not told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import agent_report

STATUS = "status"
EMPTY = {"serving": "", "desired": "", "previous": "", "candidate": "", "state": "empty", "heldBy": "", "reason": ""}
_EVICTED = "evicted"


class Status:
    """A service; `listed` is agent_aliases.Aliases.listed."""

    def __init__(self, listed: Callable[[], list[dict[str, Any]]], reporter: agent_report.Publisher) -> None:
        self._listed = listed
        self._reporter = reporter
        self._told: dict[str, dict[str, Any]] = {}

    def tick(self) -> list[str]:
        """Reports what is not as it was told last."""
        now = {row["alias"]: told(row, self._told.get(row["alias"])) for row in self._listed()}
        for alias in self._told.keys() - now.keys():
            self._reporter.publish(alias, STATUS, {"component": self._told[alias]["component"], **EMPTY})
        for alias, fields in now.items():
            if fields != self._told.get(alias):
                self._reporter.publish(alias, STATUS, fields)
        self._told = now
        return []

    def close(self) -> None:
        """Tells what changed last."""
        self.tick()


def told(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The message of a row of `listed`; a model that is out of memory is in the state it was in."""
    state = row["state"]
    if state == _EVICTED:
        state = before["state"] if before and before["serving"] == row["serving"] else "serving"
    return {
        "component": row["component"],
        "serving": row["serving"],
        "desired": row["desired"],
        "previous": row["previous"],
        "candidate": row["candidate"],
        "state": state,
        "heldBy": row["held_by"],
        "reason": row["reason"],
    }
