"""What an agent has beside its native door: the other doors, and its services.

While one agent takes over from another, the doors of the Open Inference Protocol are open in both: the old one's until the
new one is RUNNING. What writes files is open in one only, with a moment of none between.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import threading
from collections.abc import Mapping
from typing import Any

import agent_aliases
import agent_changes
import agent_edge_door
import agent_engine
import agent_observing
import agent_oip_doors
import agent_server
import agent_services


class Beside:
    """Everything of one agent but `server`; closed at first."""

    def __init__(
        self,
        given: argparse.Namespace,
        aliases: agent_aliases.Aliases,
        engine: agent_engine.Engine,
        server: agent_server.Server,
    ) -> None:
        self._given = given
        self._aliases = aliases
        self._engine = engine
        self._server = server
        self._route = engine.route  # of an engine that nobody has changed yet
        self._turn = threading.Lock()  # the main thread's ticks, and whoever opens or closes
        self._given_away = False
        self._doors = agent_oip_doors.Doors()
        self._writing: tuple[Any, agent_services.Services] | None = None

    def open(self, *, alone: bool) -> None:
        """Not `alone`: the agent that this one takes over from keeps its doors until this one has its own. Raises OSError."""
        self._doors = agent_oip_doors.open_doors(self._given, self._aliases, self._engine, alone=alone)
        with self._turn:
            if not self._given_away:  # requests are answered already: a successor may have come with them
                self._begin()

    def go_on(self) -> None:
        """What writes files, which only one agent may: the services, and Edge Manager's door. Raises OSError."""
        with self._turn:
            self._given_away = False
            if self._writing is None:
                self._begin()

    def _begin(self) -> None:
        self._engine.observers.clear()
        self._engine.route = self._route
        upload = agent_observing.section("captureUpload")
        edge = agent_edge_door.open_door(self._given.edge_manager, self._aliases, self._engine, upload)
        captures = edge.captures if edge is not None else None
        services = agent_services.start(self._aliases, self._engine, captures, self._server.farewells)
        self._server.operations = services.operations
        self._writing = edge, services

    def tick(self) -> None:
        """A turn of each service."""
        with self._turn:
            if self._writing is not None:
                agent_services.tick(self._writing[1])

    def let_go(self) -> None:
        """Ends what writes files; services first: their last words are about the doors' requests, too. Twice is harmless."""
        with self._turn:
            self._given_away = True
            writing, self._writing = self._writing, None
            if writing is None:
                return
            edge, services = writing
            agent_services.close(services)
            self._server.operations = dict.fromkeys(services.operations, _busy)
            if edge is not None:
                edge.close(agent_server.LAST_REQUESTS_S)

    def close(self) -> None:
        """Everything."""
        self.let_go()
        self._doors.close(agent_server.LAST_REQUESTS_S)


def _busy(header: Mapping[str, Any]) -> dict[str, Any]:
    raise agent_changes.FrozenError(
        f"cannot {header.get('op')}: another process of the model agent takes over; try again"
    )


def prepare(given: argparse.Namespace) -> None:
    """Loads the modules of the doors that will be opened, so that they open in no time."""
    names = [
        *(["agent_oip_rest"] if given.oip_http else []),
        *(["agent_oip_grpc"] if given.oip_grpc else []),
        *(["agent_edge"] if given.edge_manager else []),
    ]
    for name in names:
        with contextlib.suppress(ImportError):  # opening says so
            importlib.import_module(name)
