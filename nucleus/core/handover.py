"""What an orderly restart hands over to the next process image, its text, and what of it may go on.

The next image may be another version: it reads `format` first, and with another one than its own it starts in the ordinary
way. Fields may be added with a default without a new format. Times are monotonic seconds, which go on within one boot.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from nucleus.core.component import Component
from nucleus.core.lifecycle import Life

FORMAT = 1

# Calls that may be carried out twice; the others end with an error when they do not end in time.
_REPEATABLE = (
    "Get",
    "List",
    "Subscribe",
    "Validate",
    "Verify",
    "Authorize",
    "marram#Get",
    "marram#Plan",
    "marram#Explain",
)


class Unreadable(Exception):  # noqa: N818  the word says it
    """What was handed over cannot be used: the ordinary start follows. The text says why."""


class Stream(Struct, frozen=True):
    """An open stream of a client; `answered` subscriptions are made again without an answer."""

    stream_id: int
    operation: str
    request: bytes
    answered: bool


class Client(Struct, frozen=True, kw_only=True):
    """A connected client. `component` is "" before its handshake; `received` is not served yet, `unsent` not written."""

    descriptor: int
    component: str
    highest_stream: int
    received: bytes
    unsent: bytes
    dropped_events: int = 0
    streams: tuple[Stream, ...] = ()


class Sockets(Struct, frozen=True):
    """The IPC server's: its listening socket at `path`, and the clients."""

    path: str
    descriptor: int
    clients: tuple[Client, ...] = ()


class Pipe(Struct, frozen=True):
    """The read end of a script's output, -1 when it is closed; `rest` is a line that has not ended."""

    descriptor: int
    rest: bytes = b""


class Child(Struct, frozen=True, kw_only=True):
    """A script's process. `code` is its exit code if it has ended; `record` the name of its record file."""

    pid: int
    start: int
    record: str
    code: int | None = None
    pipes: tuple[Pipe, ...] = ()


class Script(Struct, frozen=True, kw_only=True):
    """A phase that is under way. Without child its script is yet to be started."""

    phase: str
    child: Child | None = None
    last: dict[str, str] = {}
    began_at: float = 0.0
    timeout_s: float = 0.0


class Runner(Struct, frozen=True, kw_only=True):
    """A component under supervision. `record` is the newest one, `used` the one its scripts come from.

    `process_name` "": its own (core/overlap.py).
    """

    record: Component
    used: Component
    token: str
    life: Life
    since_at: float
    process_name: str = ""
    removing: bool = False
    spawned: bool = False
    paused: bool = False
    scripts: tuple[Script, ...] = ()
    others: tuple[Child, ...] = ()  # e.g. of a health check: nobody waits for their ends any more


class Components(Struct, frozen=True, kw_only=True):
    """The supervisor's: all components, and the numbers it goes on counting from."""

    generation: int
    number: int
    runners: tuple[Runner, ...] = ()


class Message(Struct, frozen=True, kw_only=True):
    """One on its way to the cloud. `properties` without the one that is no text, `correlation`.

    `number` is its place among its kind, 0 if it has none; `own`: the nucleus itself has sent it, no component.
    """

    topic: str
    payload: bytes
    qos: int
    properties: dict[str, Any] = {}
    correlation: bytes | None = None
    number: int = 0
    own: bool = False
    expires_at: float | None = None


class Uplink(Struct, frozen=True):
    """The MQTT connection's: filters that the session at the broker holds, and messages in their order."""

    confirmed: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    online: bool = False


class Deputy(Struct, frozen=True):
    """Who serves the clients until the next image does (ipc/deputy.py): the descriptor to ask it by, and its pid."""

    descriptor: int
    pid: int


class State(Struct, frozen=True, kw_only=True):
    """Everything. `ports` are the token exchange's listening sockets (port: descriptor); `lock` the root's lock file."""

    format: int
    pid: int
    root: str
    version: str
    began_at: float
    lock: int
    sockets: Sockets
    components: Components
    cli_tokens: dict[str, str] = {}
    ports: dict[int, int] = {}
    uplink: Uplink | None = None
    deputy: Deputy | None = None


class _Head(Struct, frozen=True):
    format: int


def encode(state: State) -> bytes:
    return msgspec.json.encode(state)


def decode(data: bytes, *, pid: int, root: str) -> State:
    """Raises Unreadable: another format, damage, or not meant for this process and root."""
    try:
        found = msgspec.json.decode(data, type=_Head).format
        if found != FORMAT:
            raise Unreadable(f"it has format {found}, this version reads format {FORMAT}")
        state = msgspec.json.decode(data, type=State)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(f"it is damaged: {error}") from None
    if (state.pid, state.root) != (pid, root):
        raise Unreadable(f"it is for process {state.pid} in {state.root}")
    return state


def descriptors(state: State) -> frozenset[int]:
    """Every descriptor the next image needs."""
    found = [state.lock, state.sockets.descriptor, *state.ports.values()]
    found += [client.descriptor for client in state.sockets.clients]
    for one in state.components.runners:
        found += outputs(one)
    if state.deputy is not None:
        found.append(state.deputy.descriptor)
    return frozenset(found) - {-1}


def outputs(one: Runner) -> list[int]:
    """The open descriptors of a component's pipes."""
    children = (*(script.child for script in one.scripts if script.child is not None), *one.others)
    return [pipe.descriptor for child in children for pipe in child.pipes if pipe.descriptor >= 0]


def is_repeatable(operation: str) -> bool:
    """Whether a call that was not answered yet may be carried out again by the next image."""
    return operation.startswith(_REPEATABLE)
