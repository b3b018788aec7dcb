"""Releases and withdrawals that cannot be done when they are asked for: the agent does them as soon as it can.

Who asked (a component's Shutdown or Uninstall) is gone soon after, so nobody would ask again. What waits is of this run only. An
offer of the component ends it: old news about a component that is back would take its model away.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

import agent_changes

LIMIT = 256


class Told(Protocol):
    """Who does them (agent_aliases.Aliases)."""

    def release(self, component: str, version: str) -> str:
        """The component was stopped."""

    def withdraw(self, component: str, version: str) -> str:
        """The component is gone."""


class Farewells:
    """For many threads. Changes of `aliases` happen under `changes`."""

    def __init__(self, aliases: Told, changes: agent_changes.Changes) -> None:
        self._aliases = aliases
        self._changes = changes
        self._waiting: dict[tuple[str, str, str], None] = {}
        self._lock = threading.Lock()

    def take(self, verb: str, component: str, version: str) -> str:
        """Does it and returns a line that says so; raises OSError where it must wait."""
        wanted = (verb, component, version)
        try:
            message = self._do(wanted)
        except OSError:
            with self._lock:
                if len(self._waiting) < LIMIT:
                    self._waiting[wanted] = None
            raise
        self._forget(wanted)
        return message

    def offered(self, component: str) -> None:
        """The component is there, whatever it said before."""
        with self._lock:
            for wanted in [each for each in self._waiting if each[1] == component]:
                del self._waiting[wanted]

    def tick(self) -> list[str]:
        """Does what waits, and can be done by now; raises OSError for the first that cannot."""
        lines = []
        for wanted in list(self._waiting):
            with contextlib.suppress(agent_changes.FrozenError), self._changes:
                # There was an offer, or it was asked again, while another change was under way.
                if wanted not in self._waiting:
                    continue
                lines.append(f"{wanted[0]}, which could not be done before: {self._do(wanted)}")
                self._forget(wanted)
        return lines

    def close(self) -> None:
        """What waits now is lost."""

    def _do(self, wanted: tuple[str, str, str]) -> str:
        verb, component, version = wanted
        return (self._aliases.release if verb == "release" else self._aliases.withdraw)(component, version)

    def _forget(self, wanted: tuple[str, str, str]) -> None:
        with self._lock:
            self._waiting.pop(wanted, None)
