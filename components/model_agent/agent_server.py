"""The native door: frames over a Unix socket, one thread for each connection.

Frames are those of agent_frames.py; requests and what a good reply adds to `"ok": true`:

    {"op": "predict" or "share", ...}                      agent_predictions.py
    {"op": "offer", "component", "version", "artifacts": folder, "settings": {}}  -> message (agent_settings.py)
    {"op": "release" or "withdraw", "component", "version"}                 -> message
    {"op": "capture", "alias", "id": UUID or none}         -> id (agent_captures.py)
    {"op": "observed", "alias"}                            -> observed (agent_observing.py)
    {"op": "list"}                                                          -> models (agent_aliases.listed), figures
    {"op": "take_over", "step", "format"}                                   -> the whole connection: agent_takeover.py

Every prediction says which component version gave it. A request that began with one model ends with it.
Threads, not one loop: a request runs on its connection's thread, because onnxruntime computes outside of Python's lock
and several connections should not wait for each other. The number of connections is bounded (agent_connections.py); one too
many hears BUSY.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_aliases
import agent_changes
import agent_check
import agent_connections
import agent_durable
import agent_engine
import agent_farewells
import agent_frames
import agent_identity
import agent_isolated
import agent_listener
import agent_predictions
import agent_settings
import agent_shared
import model_tensors

IDLE_S = 600.0  # a silent connection is closed; clients connect again
RESERVED_IDLE_S = 2.0  # one of the reserve, where room is scarce
FRAME_S = 10.0  # a frame that began must arrive, and an answer must be taken, within this
LAST_REQUESTS_S = 2.0
SOCKET_PATH_LIMIT_BYTES = 107
_LINE_CHARACTERS = 2000


class StartError(Exception):
    """The agent cannot start; the message says why."""


@dataclass(frozen=True)
class Talk:
    """One connection: what it sends and what it asked before."""

    connection: socket.socket
    place: agent_connections.Place
    reader: agent_frames.Reader
    predictions: agent_predictions.Predictions


class Server:
    """Answers requests on a listening socket until the process ends."""

    def __init__(
        self,
        aliases: agent_aliases.Aliases,
        engine: agent_engine.Engine,
        listener: agent_listener.Listener,
        callers: agent_identity.Callers,
        farewells: agent_farewells.Farewells,
    ) -> None:
        self._aliases = aliases
        self._engine = engine
        self._listener = listener
        self._callers = callers
        self.farewells = farewells
        # Of the services: operations by name, which take the header and return the reply's. Raise what _answer knows.
        self.operations: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {}
        self._copies = agent_shared.Copies()
        self._connections = agent_connections.Connections()
        # Who speaks of it has the rest of the connection (agent_giving.Giver).
        self.take_over: Callable[[socket.socket, agent_frames.Reader, Mapping[str, Any]], None] | None = None
        self._finishing = False
        self.idle = threading.Condition()

    def run(self) -> None:
        """Accepts connections; returns when the listener is closed."""
        while True:
            connection = self._listener.accept()
            if connection is None:
                return
            busy = "too many connections are open"
            place = self._connections.enter(connection)
            if place is not None:
                try:
                    threading.Thread(target=self._serve, args=(place,), daemon=True).start()
                    continue
                except RuntimeError as error:  # of threads the system has no more just now
                    self._connections.leave(place)
                    busy = str(error)
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.1)
                agent_frames.send(connection, refusal("BUSY", busy))

    def finish(self) -> None:
        """Takes no more connections and waits for the replies under way, LAST_REQUESTS_S at most."""
        self._listener.close()
        self._finishing = True
        with self.idle:
            self.idle.wait_for(lambda: not self._connections.answering(), LAST_REQUESTS_S)

    def drain(self) -> None:
        """Answers what has come, and ends each connection after that: its client connects again, to who accepts now."""
        self._connections.drain()

    def _serve(self, place: agent_connections.Place) -> None:
        connection = place.connection
        reader = agent_frames.Reader(connection, descriptors=True)
        predictions = agent_predictions.Predictions(self._engine, self._copies)
        try:
            with connection, contextlib.suppress(OSError, agent_frames.ClosedError):
                agent_frames.bound(connection, RESERVED_IDLE_S if place.reserved else IDLE_S, FRAME_S)
                self._converse(Talk(connection, place, reader, predictions))
        finally:
            reader.close()
            predictions.close()
            self._connections.leave(place)

    def _converse(self, talk: Talk) -> None:
        while True:
            try:
                text, body = talk.reader.frame(FRAME_S)
                header = talk.predictions.header(text)
            except agent_frames.FrameError as error:
                head = agent_frames.encode(refusal("INVALID_ARGUMENT", str(error)))
                agent_frames.write(talk.connection, head, b"", FRAME_S)
                return  # where the next frame would begin is unknown
            if header.get("op") == "take_over" and self.take_over is not None:
                self._connections.lend(talk.place)
                self.take_over(talk.connection, talk.reader, header)
                return
            self._reply(talk, header, text, body)
            if talk.place.reserved and header.get("op") in agent_connections.PREDICTIONS:
                return  # refused; its client comes again

    def _reply(self, talk: Talk, header: Mapping[str, Any], text: bytes, body: bytes | bytearray) -> None:
        talk.place.answering = True
        try:
            head, answered = self._answer(talk, header, text, body)
            agent_frames.write(talk.connection, head, answered, FRAME_S)
        finally:
            talk.place.since = time.monotonic()
            talk.place.answering = False
            if self._finishing:
                with self.idle:
                    self.idle.notify_all()

    def _answer(
        self, talk: Talk, header: Mapping[str, Any], text: bytes, body: bytes | bytearray
    ) -> tuple[bytes, bytes]:
        """The reply's frame up to its body, and the body; whatever goes wrong with a request is an answer, too."""
        try:
            match header.get("op"):
                case "predict" | "share" if talk.place.reserved:
                    raise agent_predictions.RequestError("BUSY", "all connections have requests under way; try again")
                case "predict":
                    return talk.predictions.answer(text, header, body)
                case "share":
                    reply = talk.predictions.share(talk.reader.descriptor())
                case "list":
                    reply = {"ok": True, "models": self._aliases.listed(), "figures": self._engine.figures()}
                case "offer" | "release" | "withdraw" as verb:
                    self._callers.may(verb, header, talk.connection)
                    message = self._hand_over(verb, header)
                    print(f"{verb}: {_line(message)}", flush=True)
                    reply = {"ok": True, "message": message}
                case str(verb) if verb in self.operations:
                    self._callers.may(verb, header, talk.connection)
                    reply = self.operations[verb](header)
                case other:
                    raise agent_predictions.RequestError("INVALID_ARGUMENT", f"unknown operation {str(other)[:50]!r}")
            return agent_frames.reply(reply)
        except (agent_predictions.RequestError, agent_identity.IdentityError) as error:
            refused = refusal(error.code, str(error))
        except (agent_changes.FrozenError, agent_durable.FullError) as error:
            refused = refusal(error.code, str(error))
        except agent_check.RefusedError as error:
            what = f"{header.get('component')} {header.get('version')}: {error}"
            print(f"refused {_line(what)}", flush=True)
            refused = refusal(error.code, str(error))
        except (agent_isolated.CrashedError, agent_check.HungError) as error:
            refused = refusal(error.code, str(error))
        except (agent_check.InputError, agent_settings.SettingsError, model_tensors.RejectedError) as error:
            refused = refusal("INVALID_ARGUMENT", str(error))
        except Exception as error:  # a request must never end the agent: the others keep their models
            print(f"cannot answer {header.get('op')}: {error!r}", file=sys.stderr, flush=True)
            refused = refusal("INTERNAL", f"{type(error).__name__}: {error}")
        return agent_frames.encode(refused), b""

    def _hand_over(self, verb: str, header: Mapping[str, Any]) -> str:
        component, version = agent_predictions.text(header, "component"), agent_predictions.text(header, "version")
        match verb:
            case "offer":
                folder = Path(agent_predictions.text(header, "artifacts"))
                self.farewells.offered(component)
                return self._aliases.offer(component, version, folder, header.get("settings", {}))
            case _:
                return self.farewells.take(verb, component, version)


def _line(text: str) -> str:
    """One line for the log, whatever a caller wrote into its request."""
    return "".join(each if each.isprintable() else "?" for each in text[:_LINE_CHARACTERS])


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, for this user only; takes the place of one left by a predecessor."""
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT_BYTES:
        raise StartError(f"the socket path {path} is longer than {SOCKET_PATH_LIMIT_BYTES} bytes")
    place = Path(path)
    if place.exists() and not stat.S_ISSOCK(place.stat().st_mode):
        raise StartError(f"{path} exists and is no socket")
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(2 * agent_connections.LIMIT)  # beyond that a connect with a time limit fails at once
    return listener


def refusal(code: str, message: str) -> dict[str, Any]:
    """The header of a reply without an answer."""
    return {"ok": False, "code": code, "message": message}
