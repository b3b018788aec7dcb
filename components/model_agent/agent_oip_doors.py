"""Opens the doors of the Open Inference Protocol that the agent's configuration asks for, and closes them.

Addresses are 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH; "" keeps a door shut. A library that is not
installed keeps the gRPC door shut, too, and is told once; an address that cannot be had is an error of the start.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_aliases
import agent_engine


@dataclass(frozen=True)
class Doors:
    """The doors that are open."""

    rest: Any = None  # agent_oip_http.Server
    grpc: Any = None  # agent_oip_grpc.Door

    def close(self, grace_s: float) -> None:
        """No more requests; those under way get `grace_s`."""
        closed = self.grpc.close(grace_s) if self.grpc is not None else None
        if self.rest is not None:
            self.rest.finish(grace_s)
        if closed is not None:
            closed.wait(grace_s)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The agent's options for these doors."""
    parser.add_argument("--oip-http", default="", metavar="ADDRESS", help="Open Inference Protocol over REST")
    parser.add_argument("--oip-grpc", default="", metavar="ADDRESS", help="the same over gRPC")
    parser.add_argument("--repository", type=Path, default=Path("repository"), help="models for the doors' load")


def open_doors(
    given: argparse.Namespace, aliases: agent_aliases.Aliases, engine: agent_engine.Engine, *, alone: bool = True
) -> Doors:
    """Listens where the options say; the working directory gets the token file. Raises OSError.

    Not `alone`: the agent that this one takes over from listens there, too.
    """
    if not given.oip_http and not given.oip_grpc:
        return Doors()
    addresses = importlib.import_module("agent_oip_address")
    for address in filter(None, (given.oip_http, given.oip_grpc)) if alone else ():
        addresses.free(address)
    # Only here: an agent whose doors stay closed does not carry their modules in memory.
    repositories: Any = importlib.import_module("agent_oip_repository")
    services: Any = importlib.import_module("agent_oip_service")
    repository = repositories.Repository(aliases, repositories.token(Path()), given.repository)
    regions = importlib.import_module("agent_oip_shared").Regions(repository.authorize)
    inside = services.Inside(services.Service(aliases, engine), repository, regions)
    grpc = _grpc(given.oip_grpc, inside) if given.oip_grpc else None
    if not given.oip_http:
        return Doors(None, grpc)
    rest = importlib.import_module("agent_oip_rest").Door(given.oip_http, inside).server
    threading.Thread(target=rest.serve_forever, name="oip-rest", daemon=True).start()
    print(f"open inference protocol: REST on {rest.where}", flush=True)
    return Doors(rest, grpc)


def _grpc(address: str, inside: Any) -> Any:
    if not address.startswith("unix:"):
        importlib.import_module("agent_oip_address").loopback(address)  # raises for what others could reach
    try:
        module = importlib.import_module("agent_oip_grpc")
    except ImportError as error:
        print(
            f"open inference protocol: no gRPC door, {error}; install grpcio and protobuf for the agent's Python",
            file=sys.stderr,
            flush=True,
        )
        return None
    door = module.Door(address, inside)
    print(f"open inference protocol: gRPC on {door.where}", flush=True)
    return door
