"""The words of a component's life: states, events, commands, the record, and small questions about it.

What leads where is one table with one step function: core/transitions.py.
Source: spec/nucleus.md 2.1 to 2.5, 2.9, 2.10 (lifecyclemanager/Lifecycle, GenericExternalService of the original).
"""

from __future__ import annotations

import enum

from msgspec import Struct, structs


class State(enum.Enum):
    """States in the original's order; the number is the original's ordinal."""

    STATELESS = 0
    NEW = 1
    INSTALLED = 2
    STARTING = 3
    RUNNING = 4
    STOPPING = 5
    ERRORED = 6
    BROKEN = 7
    FINISHED = 8
    UNINSTALLING = 9
    UNINSTALLED = 10


class Effect(enum.StrEnum):
    """What a changed record means for the component's processes (spec/nucleus.md 2.6)."""

    START = "START"
    REINSTALL = "REINSTALL"
    RESTART = "RESTART"
    KEEP = "KEEP"
    OVERLAP = "OVERLAP"  # ours (core/overlap.py); where that cannot be, a reinstallation


class Phase(enum.StrEnum):
    """What a component is busy with: one of its scripts, or (KILL) the end of all its processes."""

    INSTALL = "install"
    STARTUP = "startup"
    RUN = "run"
    SHUTDOWN = "shutdown"
    RECOVER = "recover"
    UNINSTALL = "uninstall"
    KILL = "kill"


class Kind(enum.StrEnum):
    """Events: requests, changes of dependencies, reports of the component itself (UpdateState), ends of scripts."""

    START = "start"
    REINSTALL = "reinstall"
    RESTART = "restart"
    STOP = "stop"
    UNINSTALL = "uninstall"
    KEEP = "record changed"
    READY = "dependencies ready"
    NOT_READY = "dependencies not ready"
    REPORTED_RUNNING = "reported RUNNING"
    REPORTED_ERRORED = "reported ERRORED"
    REPORTED_FINISHED = "reported FINISHED"
    INSTALL_DONE = "Install done"
    INSTALL_FAILED = "Install failed"
    STARTUP_DONE = "Startup done"
    STARTUP_NOTHING = "no Startup"
    STARTUP_FAILED = "Startup failed"
    RUN_SPAWNED = "Run spawned"
    RUN_NOTHING = "no Run"
    RUN_DONE = "Run done"
    RUN_FAILED = "Run failed"
    SHUTDOWN_DONE = "Shutdown done"
    SHUTDOWN_FAILED = "Shutdown failed"
    RECOVER_ENDED = "Recover ended"
    UNINSTALL_DONE = "Uninstall done"
    UNINSTALL_FAILED = "Uninstall failed"
    KILLED = "processes gone"
    NEXT = "next"


# phase: event when it succeeded, when there was nothing to run, when it failed
OUTCOMES = {
    Phase.INSTALL: (Kind.INSTALL_DONE, Kind.INSTALL_DONE, Kind.INSTALL_FAILED),
    Phase.STARTUP: (Kind.STARTUP_DONE, Kind.STARTUP_NOTHING, Kind.STARTUP_FAILED),
    Phase.RUN: (Kind.RUN_DONE, Kind.RUN_NOTHING, Kind.RUN_FAILED),
    Phase.SHUTDOWN: (Kind.SHUTDOWN_DONE, Kind.SHUTDOWN_DONE, Kind.SHUTDOWN_FAILED),
    Phase.RECOVER: (Kind.RECOVER_ENDED, Kind.RECOVER_ENDED, Kind.RECOVER_ENDED),
    Phase.UNINSTALL: (Kind.UNINSTALL_DONE, Kind.UNINSTALL_DONE, Kind.UNINSTALL_FAILED),
}


class Event(Struct, frozen=True):
    """`code` and `reason` go with failures; `generation` (not 0) with a record handed over by `adopt`."""

    kind: Kind
    code: str = ""
    reason: str = ""
    generation: int = 0


class RunScript(Struct, frozen=True):
    """Run the script of a phase; its end comes back as an event."""

    phase: Phase


class KillProcesses(Struct, frozen=True):
    """End every script and every process of the component, then tell KILLED."""


class TakeRecord(Struct, frozen=True):
    """From here on the newest record counts; until then scripts (the old Shutdown) come from the one started with."""


class DropStartupDeadline(Struct, frozen=True):
    """The component is RUNNING: a Startup script that still runs may stay as long as it likes."""


Command = RunScript | KillProcesses | TakeRecord | DropStartupDeadline


class Life(Struct, frozen=True):
    """One component's life. `desired` is worked down from the left; `doing` is what is being waited for.

    `failed_in` is the state the last error happened in, `after_error` marks a STOPPING that follows one. `errors` holds
    the times of errors for each of NEW, STARTING, RUNNING.
    """

    state: State = State.NEW
    desired: tuple[State, ...] = ()
    doing: Phase | None = None
    ready: bool = False
    installed: bool = False
    failed_in: State = State.NEW
    after_error: bool = False
    shutdown_failed: bool = False
    errors: dict[State, tuple[float, ...]] = {}
    error_reset_s: float = 3600.0  # `errorResetTime`, spec/nucleus.md 2.4
    errors_to_broken: int = 3  # there, too; ours: `marram.restartPolicy.maxFailures`
    code: str = "NONE"
    reason: str = ""
    generation: int = 0
    failures: int = 0


class Health(Struct, frozen=True):
    """What others may know of a component. `since_at` is epoch seconds; `pids` are its scripts that run now.

    `settled`: nothing is desired any more and no script is being waited for. `failures` counts how often it became
    ERRORED or BROKEN in this generation. `waiting_for` is "" or words for people.
    """

    name: str
    version: str
    state: State
    settled: bool
    status_code: str = "NONE"
    reason: str = ""
    since_at: float = 0.0
    generation: int = 0
    failures: int = 0
    pids: tuple[int, ...] = ()
    waiting_for: str = ""


REPORTS = {  # what a component may say of itself
    "RUNNING": Kind.REPORTED_RUNNING,
    "ERRORED": Kind.REPORTED_ERRORED,
    "FINISHED": Kind.REPORTED_FINISHED,
}


class Illegal(Exception):  # noqa: N818  the word says it
    """Raised for an event that has no row in the component's present state; nothing has changed."""


def with_error_rules(life: Life, reset_s: float, errors_to_broken: int) -> Life:
    """The life with another time after which earlier errors no longer count, and how many make it BROKEN."""
    return structs.replace(life, error_reset_s=reset_s, errors_to_broken=errors_to_broken)


def settled(life: Life) -> bool:
    return not life.desired and life.doing is None and life.state in (State.RUNNING, State.FINISHED, State.BROKEN)


def closed(life: Life) -> bool:
    """Nothing of the component runs and nothing will by itself."""
    ended = (State.NEW, State.FINISHED, State.BROKEN, State.UNINSTALLED)
    return not life.desired and life.doing is None and life.state in ended


def is_ready(life: Life) -> bool:
    """Whether hard dependents may start and keep running: RUNNING, FINISHED or ordinary STOPPING (spec 2.5)."""
    return life.state in (State.RUNNING, State.FINISHED) or (life.state is State.STOPPING and not life.after_error)


def leaving(life: Life) -> bool:
    """Being removed, or removed."""
    return State.UNINSTALLED in life.desired or life.state in (State.UNINSTALLING, State.UNINSTALLED)


def can_restart(life: Life) -> bool:
    """Neither BROKEN nor on its way out nor never asked to start (spec 2.2)."""
    if life.state is State.BROKEN or leaving(life):
        return False
    return life.state is not State.NEW or bool(life.desired)


def request(life: Life, effect: Effect) -> Kind:
    """The event for an effect: what is BROKEN or leaving comes back only by a reinstallation (spec 2.6)."""
    if effect is not Effect.REINSTALL and leaving(life):
        return Kind.REINSTALL
    if effect in (Effect.START, Effect.RESTART) and life.state is State.BROKEN:
        return Kind.REINSTALL
    return {
        Effect.START: Kind.START,
        Effect.REINSTALL: Kind.REINSTALL,
        Effect.RESTART: Kind.RESTART,
        Effect.KEEP: Kind.KEEP,
        Effect.OVERLAP: Kind.REINSTALL,
    }[effect]
