"""Takes the steps of agent_table.py: durably first, then in memory; the verbs of agent_aliases.py decide which."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import agent_budget
import agent_check
import agent_entry
import agent_gate
import agent_registry
import agent_room
import agent_table


class Steps:
    """One write at a time; `room` and `admission` are filled in by who makes them with `change` and `note`."""

    room: agent_room.Room
    admission: agent_gate.Gate

    def __init__(self, registry: agent_registry.Registry) -> None:
        self.registry = registry
        self.released_at: dict[str, float] = {}  # by time.monotonic()
        self._writing = threading.Lock()

    def entry(self, alias: str) -> agent_entry.Entry | None:
        """What is known about the alias."""
        return self.registry.aliases.get(alias)

    def after(self, alias: str, event: Any) -> agent_entry.Entry | None:
        """What the table says comes after `event`; raises agent_check.RefusedError."""
        try:
            return agent_table.step(self.entry(alias), event)
        except agent_table.IllegalError as error:
            raise agent_check.RefusedError(f"{alias}: {error}", error.code) from error

    def note(self, alias: str, event: Any) -> None:
        """Takes the step that something in memory led to."""
        entry = self.entry(alias)
        if isinstance(event, agent_table.Damaged) and entry is not None:
            event = self.admission.damaged(entry, event.key, event.reason)
        self.change(alias, event)

    def change(self, alias: str, event: Any, before: Callable[[], Any] | None = None) -> None:
        """Takes the step, after `before`, which no other change may come between; raises agent_check.RefusedError."""
        with self._writing:
            if before is not None:
                before()
            after = self.after(alias, event)
            if after is not None:
                self.registry.put(alias, after)
            elif alias in self.registry.aliases:
                self.registry.remove(alias)
            if agent_entry.leased(after):
                self.released_at.setdefault(alias, time.monotonic())
            else:
                self.released_at.pop(alias, None)
        if after is None:
            self.room.forget(alias)
        elif isinstance(event, agent_table.Damaged) and after.candidate is None:
            self.room.drop(alias)

    # ---- at a start --------------------------------------------------------------------------------------------------

    def restore(self, alias: str) -> str:
        """Brings back what the store names, or the next that can and may answer; returns a line about it."""
        reasons = ""
        while (entry := self.entry(alias)) is not None:
            held = entry.serving
            try:
                self.room.restore(alias, held)
            except (agent_registry.StoreError, agent_check.RefusedError) as error:
                damaged = self.admission.damaged(entry, held.key, f"{held.version} cannot serve: {error}")
                reasons += f"; {held.component} {damaged.reason}"
                self.change(alias, damaged)
                continue
            if agent_entry.leased(entry):
                self.released_at[alias] = time.monotonic()
            return f"{alias} answers with {held.component} {held.version}{reasons}{self._restore_candidate(alias)}"
        return f"{alias} is empty{reasons}"

    def _restore_candidate(self, alias: str) -> str:
        entry = self.registry.aliases[alias]
        if entry.candidate is None:
            return ""
        try:
            self.admission.check_kept(entry.candidate)
            with self.room.arrival(self.room.fetch(alias, entry.candidate), agent_budget.Way.SPILL) as new:
                self.room.try_out(alias, new)
        except (agent_registry.StoreError, agent_check.RefusedError) as error:
            reason = f"{entry.candidate.version} cannot be tried: {error}"
            self.change(alias, agent_table.Damaged(entry.candidate.key, reason))
            return f"; {reason}"
        return f", {entry.candidate.version} is being tried"
