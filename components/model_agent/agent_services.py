"""What the agent does beside answering requests: each is a service that gets a turn every second on the main thread.

A service that fails in its turn is told once per reason and gets its next turn: a full disk must not end the agent.
Long work (an upload, a transfer) belongs on a thread of the service's own; `close` ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import agent_aliases
import agent_bundles
import agent_engine
import agent_farewells
import agent_gate
import agent_observing
import agent_predictions
import agent_report
import agent_trials


class Service(Protocol):
    """One thing that goes on beside the requests."""

    def tick(self) -> list[str]:
        """Does what is due; returns lines for the log."""

    def close(self) -> None:
        """Ends it; the agent is about to end."""


@dataclass(frozen=True)
class Services:
    """All of them in the order of their turns, and the operations that they add to the native door."""

    each: tuple[Service, ...]
    operations: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
    told: dict[int, str] = field(default_factory=dict)  # why each (by its place) failed last


class Reports:
    """Ends the reporter when everybody else has ended, so that their last words are sent."""

    def __init__(self, reporter: agent_report.Publisher) -> None:
        self._reporter = reporter

    def tick(self) -> list[str]:
        """It sends on its own thread."""
        return []

    def close(self) -> None:
        """Sends what waits."""
        self._reporter.close()


class Leases:
    """Ends the leases of models whose components did not come back, and looks for room for candidates that found none."""

    def __init__(self, aliases: agent_aliases.Aliases) -> None:
        self._aliases = aliases

    def tick(self) -> list[str]:
        """Forgets what is over, tries again what waits."""
        return [f"lease over: {line}" for line in self._aliases.expire()] + self._aliases.again()

    def close(self) -> None:
        """Nothing to end."""


def start(
    aliases: agent_aliases.Aliases, engine: agent_engine.Engine, edge: Any, farewells: agent_farewells.Farewells
) -> Services:
    """Every service of this agent, started; `edge` as in agent_observing.Observing. Raises OSError."""
    reporter = agent_report.open_reporter()
    observing = agent_observing.Observing(aliases, engine, reporter, edge)
    trials = agent_trials.Trials(aliases, reporter, observing.captures.disagreed)
    engine.observers.append(trials.observe)
    engine.route, engine.fell_back = trials.route, trials.fell_back
    admission = aliases.gate.admission
    admission.require_certificate = agent_gate.certificate_required()
    admission.captures = [*admission.captures, observing.capture_root]
    operations = {"capture": observing.capture, "release_hold": lambda header: _release_hold(aliases, header)}
    operations |= {"trial": trials.answer, "observed": observing.observed}
    bundles = agent_bundles.Bundles(aliases)
    operations |= {"apply_bundle": bundles.apply, "release_bundle": bundles.release}
    return Services((Reports(reporter), farewells, Leases(aliases), trials, *observing.services), operations)


def _release_hold(aliases: agent_aliases.Aliases, header: Mapping[str, Any]) -> dict[str, Any]:
    message = aliases.release_hold(agent_predictions.text(header, "alias"))
    print(message, flush=True)
    return {"ok": True, "message": message}


def tick(services: Services) -> None:
    """One turn of each. What goes wrong in one is told when it begins and when its reason changes; nobody else is harmed."""
    for place, service in enumerate(services.each):
        try:
            for line in service.tick():
                print(line, flush=True)
            services.told.pop(place, None)
        except Exception as error:  # the requests of all models must not end with a fault in what watches over them
            why = f"{type(service).__name__} cannot do its part: {error!r}; it is tried again every second"
            if services.told.get(place) != why:
                services.told[place] = why
                print(why, file=sys.stderr, flush=True)


def close(services: Services) -> None:
    """Ends them, the last one first."""
    for service in reversed(services.each):
        service.close()
