"""The native door: frames over a Unix socket, one thread for each connection.

Frames are those of agent_frames.py; requests and what a good reply adds to `"ok": true`:

    {"op": "predict", "alias", "tensors": [{name, dtype, shape}], "deadline_s"} + bytes
                                                            -> component, version, tensors + bytes
    {"op": "offer", "component", "version", "artifacts": folder, "settings": {}}  -> message (agent_settings.py)
    {"op": "release" or "withdraw", "component", "version"}                 -> message
    {"op": "list"}                                                          -> models (agent_aliases.listed), figures

Every prediction says which component version gave it. A request that began with one model ends with it.
Threads, not one loop: a request runs on its connection's thread, because onnxruntime computes outside of Python's lock
and several connections should not wait for each other. The number of connections is bounded; one too many hears BUSY.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_engine
import agent_frames
import agent_settings
import model_client

CONNECTIONS_LIMIT = 64
IDLE_S = 600.0  # a silent connection is closed; clients connect again
FRAME_S = 10.0  # a frame that began must arrive, and an answer must be taken, within this
LAST_REQUESTS_S = 2.0
LONGEST_S = 60.0  # a request waits in the queue
SOCKET_PATH_LIMIT_BYTES = 107


class StartError(Exception):
    """The agent cannot start; the message says why."""


class RequestError(Exception):
    """A request that gets no answer: the code and message of its reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """Answers requests on a listening socket until the process ends."""

    def __init__(self, aliases: agent_aliases.Aliases, engine: agent_engine.Engine, listener: socket.socket) -> None:
        self._aliases = aliases
        self._engine = engine
        self._listener = listener
        self._places = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        self._answering: set[int] = set()  # threads between a request and the end of its reply
        self.idle = threading.Condition()

    def run(self) -> None:
        """Accepts connections; returns when the listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
                continue
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.1)
                agent_frames.send(connection, _refusal("BUSY", f"{CONNECTIONS_LIMIT} connections are open"))

    def finish(self) -> None:
        """Takes no more connections and waits for the replies under way, LAST_REQUESTS_S at most."""
        self._listener.close()
        with self.idle:
            self.idle.wait_for(lambda: not self._answering, LAST_REQUESTS_S)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, agent_frames.ClosedError):
                self._converse(connection)
        finally:
            self._places.release()

    def _converse(self, connection: socket.socket) -> None:
        while True:
            connection.settimeout(IDLE_S)
            connection.recv(1, socket.MSG_PEEK)
            connection.settimeout(FRAME_S)
            try:
                header, body = agent_frames.receive(connection)
            except agent_frames.FrameError as error:
                agent_frames.send(connection, _refusal("INVALID_ARGUMENT", str(error)))
                return  # where the next frame would begin is unknown
            self._reply(connection, header, body)

    def _reply(self, connection: socket.socket, header: dict[str, Any], body: bytes) -> None:
        thread = threading.get_ident()
        with self.idle:
            self._answering.add(thread)
        try:
            reply, answered = self._answer(header, body)
            agent_frames.send(connection, reply, answered)
        finally:
            with self.idle:
                self._answering.discard(thread)
                self.idle.notify_all()

    def _answer(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """The reply to one request; whatever goes wrong with it is an answer, too."""
        try:
            match header.get("op"):
                case "predict":
                    return self._predict(header, body)
                case "list":
                    return {"ok": True, "models": self._aliases.listed(), "figures": self._engine.figures()}, b""
                case "offer" | "release" | "withdraw" as verb:
                    message = self._hand_over(verb, header)
                    print(f"{verb}: {message}", flush=True)
                    return {"ok": True, "message": message}, b""
                case other:
                    raise RequestError("INVALID_ARGUMENT", f"unknown operation {str(other)[:50]!r}")
        except RequestError as error:
            return _refusal(error.code, str(error)), b""
        except agent_check.RefusedError as error:
            print(f"refused {header.get('component')} {header.get('version')}: {error}", flush=True)
            return _refusal("REFUSED", str(error)), b""
        except (agent_check.InputError, agent_settings.SettingsError, model_client.RejectedError) as error:
            return _refusal("INVALID_ARGUMENT", str(error)), b""
        except Exception as error:  # a request must never end the agent: the others keep their models
            print(f"cannot answer {header.get('op')}: {error!r}", file=sys.stderr, flush=True)
            return _refusal("INTERNAL", f"{type(error).__name__}: {error}"), b""

    def _predict(self, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        alias, tensors = _text(header, "alias"), header.get("tensors")
        if not isinstance(tensors, list):
            raise RequestError("INVALID_ARGUMENT", "predict needs a list of tensors")
        deadline = time.monotonic() + min(_seconds(header, "deadline_s", LONGEST_S), LONGEST_S)
        try:
            answer = self._engine.predict(alias, model_client.unpack(tensors, body), deadline)
        except agent_engine.NotReadyError as error:
            raise RequestError("NOT_READY", str(error)) from None
        except agent_engine.BusyError as error:
            raise RequestError("BUSY", str(error)) from None
        described, answered = model_client.pack(answer.outputs)
        if len(answered) > agent_frames.BODY_LIMIT_BYTES:
            raise RequestError(
                "INVALID_ARGUMENT", f"the answer of {len(answered)} bytes is above the limit; send smaller batches"
            )
        reply = {"ok": True, "component": answer.component, "version": answer.version, "tensors": described}
        return reply, answered

    def _hand_over(self, verb: str, header: dict[str, Any]) -> str:
        component, version = _text(header, "component"), _text(header, "version")
        match verb:
            case "offer":
                settings = agent_settings.read(header.get("settings", {}))
                return self._aliases.offer(component, version, Path(_text(header, "artifacts")), settings)
            case "release":
                return self._aliases.release(component, version)
            case _:
                return self._aliases.withdraw(component, version)


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
    listener.listen(CONNECTIONS_LIMIT)
    return listener


def _refusal(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "code": code, "message": message}


def _text(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise RequestError("INVALID_ARGUMENT", f"{header.get('op')} needs {key}, a text")
    return value


def _seconds(header: dict[str, Any], key: str, default: float) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise RequestError("INVALID_ARGUMENT", f"{key} must be a number of seconds")
    return float(value)
