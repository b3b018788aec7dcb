"""The model agent: serves ONNX models to the components of one device over a Unix socket.

Run as `agent.py --socket agent.sock --lease-seconds 600` in its work folder. It restores what it served before from its
own store (agent_registry.py), listens (agent_server.py), and only then reports RUNNING to the nucleus. What runs beside
the requests is a service (agent_services.py). If an agent runs already, it takes its place (agent_takeover.py).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import queue
import signal
import sys
import threading
from pathlib import Path

import agent_aliases
import agent_beside
import agent_edge_door
import agent_engine
import agent_farewells
import agent_giving
import agent_identity
import agent_oip_doors
import agent_registry
import agent_server
import agent_takeover

TICK_S = 1.0


def report_running() -> None:
    """Tells the nucleus that this component is RUNNING; raises agent_server.StartError if it does not take that."""
    if "SVCUID" not in os.environ:
        return  # started by hand: there is nobody to tell
    # Only here: the file is put beside this one when the component is published (design.md 4.2).
    marram_ipc = importlib.import_module("marram_ipc")
    try:
        with marram_ipc.Client() as nucleus:
            nucleus.call("UpdateState", {"state": "RUNNING"})
    except marram_ipc.IPCError as error:
        raise agent_server.StartError(f"the nucleus did not take its state: {error}") from error


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """What the recipe's command line says."""
    parser = argparse.ArgumentParser(prog="agent.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", default="agent.sock")
    parser.add_argument("--lease-seconds", type=float, default=600.0)
    parser.add_argument("--nucleus-root", type=Path, help="folder in which the nucleus says whom it trusts")
    parser.add_argument("--cores", type=int, default=1, help="requests that compute at a time")
    parser.add_argument("--callers", choices=agent_identity.POLICIES, default=agent_identity.TOKEN)
    parser.add_argument("--memory-bytes", type=int, default=0, help="that all models may take together; 0 is no budget")
    parser.add_argument("--store", type=Path, default=Path("registry"))
    agent_oip_doors.add_arguments(parser)
    agent_edge_door.add_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    given = read_arguments(arguments)
    # Not an Event: set in a handler, it would wait for ever for the lock of a `wait` that the signal interrupted.
    stops: queue.SimpleQueue[int] = queue.SimpleQueue()  # exit codes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stops.put(0))
    try:
        agent_beside.prepare(given)
        begun = agent_takeover.start(given.socket, given.store, lambda registry: restored(given, registry))
        engine = agent_engine.Engine(begun.aliases.serving, given.cores)
        engine.wake = begun.aliases.wake
        callers = agent_identity.callers(begun.aliases.listed, given.callers)
        farewells = agent_farewells.Farewells(begun.aliases, begun.registry.changes)
        server = agent_server.Server(begun.aliases, engine, begun.listener, callers, farewells)
        beside = agent_beside.Beside(given, begun.aliases, engine, server)
        giver = agent_giving.Giver(agent_giving.Estate(begun, callers, server.drain, beside, stops.put))
        server.take_over = giver.converse
        threading.Thread(target=server.run, daemon=True).start()
        beside.open(alone=begun.predecessor is None)
        print(f"listening on {given.socket}", flush=True)
        report_running()
        if begun.predecessor is not None:
            begun.predecessor.done()
    except (agent_registry.StoreError, agent_server.StartError, OSError) as error:
        print(f"cannot start the model agent: {error}", file=sys.stderr, flush=True)
        return 1
    code = until_stopped(stops, beside)
    if not giver.given:
        Path(given.socket).unlink(missing_ok=True)
    beside.close()
    server.finish()
    return code


def restored(given: argparse.Namespace, registry: agent_registry.Registry) -> agent_aliases.Aliases:
    """The aliases of the store, loaded."""
    aliases = agent_aliases.Aliases(registry, given.lease_seconds, given.nucleus_root, given.memory_bytes)
    for line in aliases.restore():
        print(f"restored: {line}", flush=True)
    return aliases


def until_stopped(stops: queue.SimpleQueue[int], beside: agent_beside.Beside) -> int:
    """Gives services their turns; returns the exit code."""
    while True:
        with contextlib.suppress(queue.Empty):
            return stops.get(timeout=TICK_S)
        beside.tick()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still compute inside onnxruntime; an orderly interpreter exit would tear it down below them.
    os._exit(code)
