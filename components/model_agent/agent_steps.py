"""Takes the steps of agent_table.py: durably first, then in memory; the verbs of agent_aliases.py decide which."""

from __future__ import annotations

import sys
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
import agent_verdicts

AGAIN_S = 15.0  # between two tries to bring in candidates that found no room


class Steps:
    """One write at a time; `room` and `admission` are filled in by who makes them with `change` and `note`."""

    room: agent_room.Room
    admission: agent_gate.Gate

    def __init__(self, registry: agent_registry.Registry) -> None:
        self.registry = registry
        self.released_at: dict[str, float] = {}  # by time.monotonic()
        self._again_at = 0.0
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
        if isinstance(event, agent_table.Evicted) and entry is not None and entry.candidate is not None:
            return  # the candidate waits for room (none leaves that is tried against); the next request brings it in
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
            self._again_at = 0.0
        elif isinstance(event, agent_table.Damaged) and after.candidate is None:
            self.room.drop(alias)

    def refuse(self, alias: str, event: agent_table.Refused) -> str:
        """Notes that the component is alive although its model is not, and says what answers now.

        It is known of all that the component has where it is not known which alias it is about, or that is not the component's.
        """
        mine = agent_entry.owned(self.registry.aliases, event.component, event.owner)
        for each in (alias,) if alias in mine else mine:
            try:
                self.change(each, event)
            except OSError as error:  # the caller hears it all the same
                self.released_at.pop(each, None)
                print(
                    f"the refusal of {event.component} {event.version} is not kept: {error}",
                    file=sys.stderr,
                    flush=True,
                )
        known = {name: self.registry.aliases.get(name) for name in ((alias,) if alias else mine)}
        still = [
            f"{name} still answers with {each.serving.component} {each.serving.version}"
            for name, each in known.items()
            if each
        ]
        return "; ".join(still) or f"nothing answers for {alias or event.component}"

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
        why = self._bring_candidate(alias, entry.candidate, agent_budget.Way.SPILL)
        if not why:
            return f", {entry.candidate.version} is being tried"
        self._again_at = time.monotonic() + AGAIN_S
        return f"; {entry.candidate.version} cannot be tried: {why}"

    # ---- candidates that found no room -------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether a candidate is to be brought into memory now."""
        return time.monotonic() >= self._again_at and bool(self._postponed())

    def again(self) -> list[str]:
        """Brings in the candidates for which there is room by now, without anybody else's leaving; a line for each."""
        self._again_at, lines = time.monotonic() + AGAIN_S, list[str]()
        for alias, held in self._postponed():
            if not self._bring_candidate(alias, held, agent_budget.Way.OVERLAP):
                lines.append(f"{alias}: {held.version} is being tried again")
        return lines

    def _postponed(self) -> list[tuple[str, agent_entry.Held]]:
        known = self.registry.aliases.items()
        return [(name, each.candidate) for name, each in known if each.candidate and name not in self.room.candidates]

    def _bring_candidate(self, alias: str, held: agent_entry.Held, way: agent_budget.Way) -> str:
        """Returns why it is not in memory, or nothing: the candidate waits where that says nothing about the model."""
        try:
            self.admission.check_still(held)
            with self.room.arrival(self.room.fetch(alias, held), way, beside=True) as new:
                self.room.try_out(alias, new)
        except (agent_registry.StoreError, agent_check.RefusedError, OSError) as error:
            return self._without_candidate(alias, held, error)
        if self.registry.aliases[alias].waits:
            self.change(alias, agent_table.Postponed())
        return ""

    def _without_candidate(self, alias: str, held: agent_entry.Held, error: Exception) -> str:
        entry, reason = self.registry.aliases[alias], f"{held.version} cannot be tried: {error}"
        if isinstance(error, agent_registry.StoreError):
            self.change(alias, agent_table.Damaged(held.key, reason))
        elif isinstance(error, agent_check.RefusedError) and error.code not in agent_verdicts.NOT_FINAL:
            self.change(alias, agent_table.Dropped(reason, final=False))
        elif not entry.waits:  # once: the figures of the next reason are others
            self.change(alias, agent_table.Postponed(f"{held.version} cannot be tried yet: {error}"))
        return str(error)
