"""How the agent that runs leaves its place to a new process: the other side of agent_takeover.py, which has the steps."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import agent_frames
import agent_identity
import agent_server
import agent_takeover

FREEZE_S = 5.0  # a change that is under way may take this long in one try
LOAD_S = 600.0  # the new one loads its models
STEP_S = 30.0
_FOR_EVER_S = 1e6


class Beside(Protocol):
    """What stands beside the requests (agent_beside.py)."""

    def go_on(self) -> None:
        """Begins what writes files; raises OSError."""

    def let_go(self) -> None:
        """Ends it."""


@dataclass(frozen=True)
class Estate:
    """What the old agent has to give; `drain` ends its connections, `end(code)` makes the process end."""

    begun: agent_takeover.Start
    callers: agent_identity.Callers
    drain: Callable[[], None]
    beside: Beside
    end: Callable[[int], None]


class Giver:
    """The old agent's part; `given` once another process is the agent."""

    def __init__(self, estate: Estate) -> None:
        self.given = False
        self._last = ""
        self._estate = estate
        self._alone = threading.Lock()

    def converse(self, connection: socket.socket, reader: agent_frames.Reader, header: Mapping[str, Any]) -> None:
        """Everything on this connection from its first `take_over` on; returns when that has ended, one way or the other."""
        refused = self._refused(header, connection)
        if refused is None and not self._alone.acquire(blocking=False):
            refused = agent_server.refusal("BUSY", "another process takes over already")
        if refused is not None:
            agent_frames.send(connection, refused)
            return
        self._last = "hello"
        try:
            agent_frames.bound(connection, LOAD_S, STEP_S)
            agent_frames.send(connection, {"ok": True, "format": agent_takeover.FORMAT, "pid": os.getpid()})
            while self._last != "done":
                self._step(connection, str(agent_frames.decode(reader.frame(STEP_S)[0]).get("step")))
        except (OSError, agent_frames.ClosedError, agent_frames.FrameError) as error:
            print(f"who wanted to take over is gone: {error or type(error).__name__}", flush=True)
        finally:
            self._ended()
            self._alone.release()

    def _refused(self, header: Mapping[str, Any], connection: socket.socket) -> dict[str, Any] | None:
        try:
            if agent_identity.peer_user(connection) != os.geteuid():
                raise agent_identity.IdentityError("PERMISSION_DENIED", "another user may not take over")
            self._estate.callers.may("take_over", header, connection)
        except agent_identity.IdentityError as error:
            return agent_server.refusal(error.code, str(error))
        if header.get("step") != "hello" or header.get("format") != agent_takeover.FORMAT:
            return agent_server.refusal(
                "INVALID_ARGUMENT", f"take_over begins with hello of format {agent_takeover.FORMAT}"
            )
        return None

    def _step(self, connection: socket.socket, step: str) -> None:
        """Does it and answers. `_last` is a step that has begun: what may have reached the other side counts. Raises OSError."""
        match (self._last, step):
            case ("hello", "freeze"):
                if not self._estate.begun.registry.freeze(FREEZE_S):
                    agent_frames.send(connection, agent_server.refusal("BUSY", "a change is under way; ask again"))
                    return
                self._last = step
                agent_frames.send(connection, {"ok": True})
            case ("freeze", "hand"):
                self._last = step
                self._hand(connection)
            case ("hand", "taken"):
                self._last, self.given = step, True
                agent_frames.bound(connection, _FOR_EVER_S, STEP_S)  # it may take its time, we cannot have it back
                agent_frames.send(connection, {"ok": True})
                self._estate.drain()
            case ("taken", "done"):
                self._last = step
                agent_frames.send(connection, {"ok": True})
            case _:
                why = f"{step[:20]} after {self._last}"
                agent_frames.send(connection, agent_server.refusal("INVALID_ARGUMENT", why))
                raise OSError(f"it asked for {why}")

    def _hand(self, connection: socket.socket) -> None:
        begun = self._estate.begun
        agent_frames.bound(connection, STEP_S, STEP_S)  # nobody accepts until it has taken
        self._estate.beside.let_go()
        begun.listener.pause()
        reply = agent_frames.encode({"ok": True})
        descriptors = [begun.listener.fileno(), begun.registry.lock]
        if socket.send_fds(connection, [reply], descriptors) != len(reply):
            raise OSError("it does not read")

    def _ended(self) -> None:
        """Everything goes back to as it was, unless another process is the agent for good."""
        estate, begun, last = self._estate, self._estate.begun, self._last
        if last == "done":
            print("another process of the model agent has taken over", flush=True)
            estate.end(0)
            return
        if last == "taken" and not begun.registry.is_current():
            print("who had taken over changed the store and is gone: this agent starts anew", flush=True)
            estate.end(1)
            return
        self.given = False
        begun.registry.thaw()
        if last not in ("hand", "taken"):
            return
        begun.listener.resume()
        print("this agent serves again", flush=True)
        try:
            estate.beside.go_on()
        except OSError as error:
            print(f"cannot go on: {error}", file=sys.stderr, flush=True)
            estate.end(1)
