"""What an agent has beside its native door: the other doors, and its services. Opened, closed and opened again as one."""

from __future__ import annotations

import argparse
import threading
from typing import Any

import agent_aliases
import agent_edge_door
import agent_engine
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
        self._turn = threading.Lock()  # the main thread's ticks, and whoever closes
        self._open: tuple[agent_oip_doors.Doors, Any, agent_services.Services] | None = None

    def open(self) -> None:
        """Raises OSError."""
        self._engine.observers.clear()
        self._engine.route = self._route
        doors = agent_oip_doors.open_doors(self._given, self._aliases, self._engine)
        edge = agent_edge_door.open_door(self._given.edge_manager, self._aliases, self._engine)
        services = agent_services.start(self._given, self._aliases, self._engine)
        self._server.operations = services.operations
        self._open = doors, edge, services

    def tick(self) -> None:
        """A turn of each service."""
        with self._turn:
            if self._open is not None:
                agent_services.tick(self._open[2])

    def close(self) -> None:
        """Services first: their last words are about the doors' requests, too. Twice is harmless."""
        with self._turn:
            opened, self._open = self._open, None
            if opened is None:
                return
            doors, edge, services = opened
            agent_services.close(services)
            self._server.operations = {}
            doors.close(agent_server.LAST_REQUESTS_S)
            if edge is not None:
                edge.close(agent_server.LAST_REQUESTS_S)
