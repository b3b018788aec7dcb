"""How a starting agent takes over from the one that runs, so that no request finds nobody.

The new one loads everything from the store, which it may read without the lock, while the old one answers. Then, on one
connection of the native door (operation `take_over`, only for another process of this component), step by step:

    hello    the old one knows the operation; it notes nothing yet
    freeze   changes are refused from here on (BUSY); the new one reads again what has changed since it read
    hand     the old one ends what stands beside the requests, accepts nothing more, and gives two descriptors: the listening
             socket and the store's lock (SCM_RIGHTS)
    taken    from the reply on the new one is the agent: it accepts and writes. The old one answers what is under way,
             and ends connections between two frames; clients connect again
    done     the new one is RUNNING; the old one ends

If the connection ends before `done`, the new one is dead (or never was): the old one accepts again. If the old one does
not know the operation, is silent, or is not this user's, the new one starts as if there was nobody. Who may write is never
in doubt: up to the reply to `taken` the old one, then the new one until its end of the connection is closed. The old one's
part is agent_giving.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_aliases
import agent_frames
import agent_identity
import agent_listener
import agent_registry
import agent_server

FORMAT = 1
HELLO_S = 5.0
STEP_S = 30.0
PATIENCE_S = 60.0  # for a change that is under way: an offer takes that long at most
AGAIN_S = 0.1
_DESCRIPTORS = 2


class LostError(Exception):
    """There is nobody (any more) to take over from; the message says why."""


class AgainError(LostError):
    """There is somebody who has no room for this just now."""


class Predecessor:
    """The agent that runs, at the other end of `connection`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def freeze(self) -> None:
        """It changes nothing more. Raises LostError."""
        end = time.monotonic() + PATIENCE_S
        while (reply := self._ask("freeze")[0]).get("code") == "BUSY" and time.monotonic() < end:
            threading.Event().wait(AGAIN_S)
        _good(reply)

    def hand(self, path: str, store: Path) -> tuple[socket.socket, int]:
        """Its listening socket and the descriptor that holds the store's lock. Raises LostError."""
        reply, descriptors = self._ask("hand")
        try:
            _good(reply)
            if len(descriptors) != _DESCRIPTORS:
                raise LostError(f"it gave {len(descriptors)} descriptors instead of {_DESCRIPTORS}")
            _check_lock(descriptors[1], store)
            _check_listener(descriptors[0], path)
        except LostError:
            for one in descriptors:
                os.close(one)
            raise
        return socket.socket(fileno=descriptors[0]), descriptors[1]

    def taken(self) -> None:
        """From here on this process is the agent. Raises LostError."""
        _good(self._ask("taken")[0])

    def done(self) -> None:
        """It may end; that it has already is no matter."""
        try:
            self._ask("done")
        except LostError as error:
            print(f"the agent before this one is gone: {error}", flush=True)
        self.close()

    def close(self) -> None:
        """Leaves it alone."""
        self._connection.close()

    def _ask(self, step: str) -> tuple[dict[str, Any], list[int]]:
        token = os.environ.get(agent_identity.TOKEN_VARIABLE, "")
        self._connection.settimeout(HELLO_S if step == "hello" else STEP_S)
        descriptors: list[int] = []
        try:
            header = {"op": "take_over", "step": step, "format": FORMAT, "token": token}
            with contextlib.suppress(BrokenPipeError):  # closed already; why may still be read
                agent_frames.send(self._connection, header)
            data, found, _, _ = socket.recv_fds(
                self._connection, agent_frames.HEADER_LIMIT_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            descriptors += found
            while len(data) < agent_frames.PRELUDE.size or len(data) < _size(data):
                more = self._connection.recv(agent_frames.HEADER_LIMIT_BYTES)
                if not more:
                    raise AgainError("it closed the connection")
                data += more
            return agent_frames.decode(data[agent_frames.PRELUDE.size : _size(data)]), descriptors
        except (OSError, agent_frames.FrameError, LostError) as error:
            for one in descriptors:
                os.close(one)
            kind = AgainError if isinstance(error, AgainError) else LostError
            raise kind(f"no answer to {step}: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class Start:
    """What an agent begins with; `predecessor` still waits for `done`."""

    registry: agent_registry.Registry
    aliases: agent_aliases.Aliases
    listener: agent_listener.Listener
    predecessor: Predecessor | None


Restored = Callable[[agent_registry.Registry], agent_aliases.Aliases]


def start(path: str, store: Path, restored: Restored) -> Start:
    """From the agent that runs, or as the first one. Raises agent_registry.StoreError, agent_server.StartError, OSError."""
    predecessor = find(path)
    if predecessor is not None:
        try:
            return _take_over(predecessor, path, store, restored)
        except (LostError, agent_registry.StoreError) as error:
            predecessor.close()
            print(f"cannot take over from the agent before this one ({error}); starting anew", flush=True)
    registry = agent_registry.Registry.open(store)
    return Start(registry, restored(registry), agent_listener.Listener(agent_server.listen(path)), None)


def find(path: str) -> Predecessor | None:
    """A living agent of this user at the socket that can be taken over from; one that is busy is asked again for HELLO_S."""
    end, reasons = time.monotonic() + HELLO_S, dict[str, None]()
    while True:
        try:
            return _found(path)
        except FileNotFoundError:
            return None
        except (OSError, LostError) as error:
            reasons[str(error)] = None
            if not isinstance(error, AgainError | BlockingIOError) or time.monotonic() >= end:
                print(f"nobody to take over from at {path}: {'; then: '.join(reasons)}", flush=True)
                return None
        threading.Event().wait(AGAIN_S)


def _found(path: str) -> Predecessor:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(HELLO_S)
        connection.connect(path)
        found = Predecessor(connection)
        if agent_identity.peer_user(connection) != os.geteuid():
            raise LostError("who listens there is another user")
        reply, _ = found._ask("hello")
        _good(reply)
        if reply.get("format") != FORMAT:
            raise LostError(f"it speaks format {str(reply.get('format'))[:20]}, this agent {FORMAT}")
    except BaseException:
        connection.close()
        raise
    return found


def _take_over(predecessor: Predecessor, path: str, store: Path, restored: Restored) -> Start:
    begun = time.monotonic()
    registry = agent_registry.Registry.borrow(store)
    aliases = restored(registry)
    try:
        predecessor.freeze()
        if not registry.is_current():
            _let_go(aliases)
            registry = agent_registry.Registry.borrow(store)
            aliases = restored(registry)
        frozen = time.monotonic()
        listening, lock = predecessor.hand(path, store)
        try:
            predecessor.taken()
        except LostError:
            listening.close()
            os.close(lock)
            raise
    except (LostError, agent_registry.StoreError):
        _let_go(aliases)
        raise
    registry.own(lock)
    now = time.monotonic()
    print(f"took over after {now - begun:.2f} s of loading, {(now - frozen) * 1000:.0f} ms of handing over", flush=True)
    return Start(registry, aliases, agent_listener.Listener(listening), predecessor)


def _let_go(aliases: agent_aliases.Aliases) -> None:
    """Models that were loaded for nothing: their memory, and their processes, are needed for those that are loaded now."""
    for row in aliases.listed():
        for loaded in (aliases.serving(row["alias"]), aliases.candidate(row["alias"])):
            if loaded is not None:
                loaded.model.retire()


def _good(reply: Mapping[str, Any]) -> None:
    if reply.get("ok") is not True:
        kind = AgainError if reply.get("code") == "BUSY" else LostError
        raise kind(f"it says {str(reply.get('code'))[:50]}: {str(reply.get('message'))[:200]}")


def _size(data: bytes) -> int:
    header_bytes, body_bytes = agent_frames.PRELUDE.unpack_from(data)
    if header_bytes > agent_frames.HEADER_LIMIT_BYTES or body_bytes:
        raise LostError("it sent what is no reply")
    return int(agent_frames.PRELUDE.size + header_bytes)


def _check_listener(descriptor: int, path: str) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as found:
        listens = found.family == socket.AF_UNIX and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not listens or Path(str(found.getsockname())).name != Path(path).name:
            raise LostError("what it gave does not listen at this agent's socket")


def _check_lock(descriptor: int, store: Path) -> None:
    try:
        if not os.path.samestat(os.fstat(descriptor), (store / "lock").stat()):
            raise LostError("what it gave is not the lock of this store")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nothing, for who has it
    except OSError as error:
        raise LostError(f"what it gave does not hold the lock of this store: {error.strerror}") from error
