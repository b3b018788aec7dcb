"""The one table of a component's life, and `step`, which reads it.

`step(life, event, now) -> (life, commands)` takes the first row of TABLE that fits state, event and guards, then NEXT rows
(transitions of their own accord towards what is desired) as long as one fits and nothing is being waited for. An event
without a row raises Illegal and changes nothing. The diagram lifecycle.mmd is made from TABLE (tools/lifecycle_diagram.py).
Source: spec/nucleus.md 2.2 (desired states), 2.3 (transitions), 2.4 (the third error), 2.9 (reports).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from nucleus.core import lifecycle
from nucleus.core.lifecycle import Event, Kind, Life, Phase, State


class When(enum.StrEnum):
    """Guards of rows, in the words of the diagram."""

    WANTS_SOMETHING = "something is desired"
    WANTS_NEW = "NEW is desired"
    WANTS_UP = "INSTALLED or RUNNING is desired"
    WANTS_FINISHED = "FINISHED is desired"
    WANTS_UNINSTALLED = "UNINSTALLED is desired"
    READY = "dependencies are ready"
    BUSY = "a script runs"
    INSTALLING = "Install runs"
    NOT_INSTALLED = "Install has not succeeded"
    THIRD_ERROR = "third error in this state"
    FAILED_RUNNING = "failed in STARTING or RUNNING"
    SHUTDOWN_FAILED = "Shutdown has failed"


class Row(Struct, frozen=True):
    """In `states`, on `kinds`, if `when`: go `to` (None: stay), then begin `run`.

    `want` applies the desired-state rule of a request that nobody made; `keeps`: what is being waited for goes on.
    """

    states: tuple[State, ...]
    kinds: tuple[Kind, ...]
    to: State | None = None
    run: Phase | None = None
    when: tuple[When, ...] = ()
    want: Kind | None = None
    keeps: bool = False


NEW, INSTALLED, STARTING, RUNNING = (State.NEW,), (State.INSTALLED,), (State.STARTING,), (State.RUNNING,)
STOPPING, ERRORED, BROKEN, FINISHED = (State.STOPPING,), (State.ERRORED,), (State.BROKEN,), (State.FINISHED,)
UNINSTALLING, UNINSTALLED = (State.UNINSTALLING,), (State.UNINSTALLED,)
K, S, P, W = Kind, State, Phase, When
NEXT = (Kind.NEXT,)
QUIET = (K.KEEP, K.READY, K.NOT_READY)  # noted in the record, decided by NEXT rows
REQUESTS = (K.START, K.REINSTALL, K.RESTART, K.STOP, K.UNINSTALL)
AWAY = (K.REINSTALL, K.RESTART, K.STOP, K.UNINSTALL)  # requests that end what runs
INSTALL_BAD = (K.INSTALL_FAILED, K.REPORTED_ERRORED)
MAIN_BAD = (K.STARTUP_FAILED, K.RUN_FAILED, K.REPORTED_ERRORED)
# Ends of scripts that were running when the component was stopped or failed: expected, without meaning any more.
LATE = tuple(kind for kind in Kind if kind.name.startswith(("INSTALL_", "STARTUP_", "RUN_")))

TABLE: tuple[Row, ...] = (
    Row(NEW, NEXT, S.FINISHED, when=(W.WANTS_FINISHED,)),
    Row(NEW, NEXT, run=P.INSTALL, when=(W.WANTS_SOMETHING,)),
    Row(NEW, (K.INSTALL_DONE,), S.INSTALLED),
    Row(NEW, INSTALL_BAD, S.BROKEN, run=P.KILL, when=(W.INSTALLING, W.THIRD_ERROR)),
    Row(NEW, INSTALL_BAD, S.ERRORED, run=P.RECOVER, when=(W.INSTALLING,)),
    Row(NEW, (K.REINSTALL, K.STOP, K.UNINSTALL), run=P.KILL, when=(W.INSTALLING,)),
    Row(NEW, (K.KILLED,)),
    Row(NEW, (*REQUESTS, *QUIET)),
    #
    Row(INSTALLED, NEXT, S.STARTING, run=P.STARTUP, when=(W.WANTS_UP, W.READY)),
    Row(INSTALLED, NEXT, S.NEW, when=(W.WANTS_NEW,)),
    Row(INSTALLED, NEXT, S.FINISHED, when=(W.WANTS_FINISHED,)),
    Row(INSTALLED, (*REQUESTS, *QUIET)),
    #
    Row(STARTING, (K.STARTUP_DONE, K.RUN_SPAWNED, K.REPORTED_RUNNING), S.RUNNING),
    Row(STARTING, (K.STARTUP_NOTHING,), run=P.RUN),
    Row(STARTING, (K.RUN_NOTHING,), S.FINISHED, want=K.STOP),
    Row(STARTING, MAIN_BAD, S.BROKEN, run=P.SHUTDOWN, when=(W.THIRD_ERROR,)),
    Row(STARTING, MAIN_BAD, S.ERRORED, run=P.RECOVER),
    Row(STARTING, (K.REPORTED_FINISHED,), S.STOPPING, run=P.SHUTDOWN, want=K.STOP),
    Row(STARTING, (K.NOT_READY,), S.STOPPING, run=P.SHUTDOWN, want=K.RESTART),
    Row(STARTING, AWAY, S.STOPPING, run=P.SHUTDOWN),
    Row(STARTING, (K.START, K.KEEP, K.READY)),
    #
    Row(RUNNING, (K.RUN_DONE, K.REPORTED_FINISHED), S.STOPPING, run=P.SHUTDOWN, want=K.STOP),
    Row(RUNNING, MAIN_BAD, S.BROKEN, run=P.SHUTDOWN, when=(W.THIRD_ERROR,)),
    Row(RUNNING, MAIN_BAD, S.ERRORED, run=P.RECOVER),
    Row(RUNNING, (K.NOT_READY,), S.STOPPING, run=P.SHUTDOWN, want=K.RESTART),
    Row(RUNNING, AWAY, S.STOPPING, run=P.SHUTDOWN),
    Row(RUNNING, (K.STARTUP_NOTHING,), run=P.RUN),  # it reported RUNNING before its Run began
    Row(RUNNING, (K.STARTUP_DONE, K.RUN_SPAWNED, K.RUN_NOTHING, K.START, K.KEEP, K.READY)),
    #
    Row(STOPPING, (K.SHUTDOWN_DONE, K.SHUTDOWN_FAILED), run=P.KILL),
    Row(STOPPING, (K.KILLED,), S.ERRORED, run=P.RECOVER, when=(W.SHUTDOWN_FAILED,)),
    Row(STOPPING, (K.KILLED,), S.NEW, when=(W.WANTS_NEW,)),
    Row(STOPPING, (K.KILLED,), S.NEW, when=(W.WANTS_UP, W.NOT_INSTALLED)),
    Row(STOPPING, (K.KILLED,), S.INSTALLED, when=(W.WANTS_UP,)),
    Row(STOPPING, (K.KILLED,), S.FINISHED),
    Row(STOPPING, (K.REPORTED_ERRORED, K.REPORTED_FINISHED, *LATE, *REQUESTS, *QUIET)),
    #
    Row(ERRORED, (K.RECOVER_ENDED,), S.STOPPING, run=P.SHUTDOWN, when=(W.FAILED_RUNNING,)),
    Row(ERRORED, (K.RECOVER_ENDED,), run=P.KILL),
    Row(ERRORED, (K.KILLED,), S.FINISHED, when=(W.WANTS_FINISHED,)),
    Row(ERRORED, (K.KILLED,), S.NEW, when=(W.NOT_INSTALLED,)),
    Row(ERRORED, (K.KILLED,), S.INSTALLED),
    Row(ERRORED, (*LATE, *REQUESTS, *QUIET)),
    #
    Row(BROKEN, NEXT, S.UNINSTALLING, run=P.UNINSTALL, when=(W.WANTS_UNINSTALLED,)),
    Row(BROKEN, NEXT, S.NEW, when=(W.WANTS_NEW,)),
    Row(BROKEN, (K.SHUTDOWN_DONE, K.SHUTDOWN_FAILED), run=P.KILL),
    Row(BROKEN, (K.REINSTALL,), S.STOPPING, when=(W.BUSY,), keeps=True),  # nobody must take the new one for BROKEN
    Row(BROKEN, (K.KILLED, *LATE, K.REINSTALL, K.STOP, K.UNINSTALL, *QUIET)),
    #
    Row(FINISHED, NEXT, S.UNINSTALLING, run=P.UNINSTALL, when=(W.WANTS_UNINSTALLED,)),
    Row(FINISHED, NEXT, S.NEW, when=(W.WANTS_SOMETHING, W.NOT_INSTALLED)),
    Row(FINISHED, NEXT, S.INSTALLED, when=(W.WANTS_UP,)),
    Row(FINISHED, (*REQUESTS, *QUIET)),
    #
    Row(UNINSTALLING, (K.UNINSTALL_DONE, K.UNINSTALL_FAILED), run=P.KILL),
    Row(UNINSTALLING, (K.KILLED,), S.UNINSTALLED),
    Row(UNINSTALLING, (*REQUESTS, *QUIET)),
    Row(UNINSTALLED, NEXT, S.NEW, when=(W.WANTS_SOMETHING,)),
    Row(UNINSTALLED, (*REQUESTS, *QUIET)),
)

DESIRED: dict[Kind, tuple[State, ...]] = {
    K.START: (S.RUNNING,),
    K.REINSTALL: (S.NEW, S.RUNNING),
    K.RESTART: (S.INSTALLED, S.RUNNING),
    K.STOP: (S.FINISHED,),
    K.UNINSTALL: (S.FINISHED, S.UNINSTALLED),
}

_CODE_OF_REPORT = {
    S.NEW: "INSTALL_ERROR",
    S.STARTING: "STARTUP_ERROR",
    S.RUNNING: "RUN_ERROR",
    S.STOPPING: "SHUTDOWN_ERROR",
}
_COUNTED = (S.NEW, S.STARTING, S.RUNNING)
_NOTED = (K.SHUTDOWN_FAILED, K.UNINSTALL_FAILED, K.REPORTED_ERRORED)  # failures that do not lead to ERRORED at once

_GUARDS: dict[When, Callable[[Life, float], bool]] = {
    W.WANTS_SOMETHING: lambda life, now: bool(life.desired),
    W.WANTS_NEW: lambda life, now: _wanted(life) is S.NEW,
    W.WANTS_UP: lambda life, now: _wanted(life) in (S.INSTALLED, S.RUNNING),
    W.WANTS_FINISHED: lambda life, now: _wanted(life) is S.FINISHED,
    W.WANTS_UNINSTALLED: lambda life, now: _wanted(life) is S.UNINSTALLED,
    W.READY: lambda life, now: life.ready,
    W.BUSY: lambda life, now: life.doing is not None,
    W.INSTALLING: lambda life, now: life.doing is Phase.INSTALL,
    W.NOT_INSTALLED: lambda life, now: not life.installed,
    W.THIRD_ERROR: lambda life, now: len(_recent(life, now)) + 1 >= life.errors_to_broken,
    W.FAILED_RUNNING: lambda life, now: life.failed_in in (S.STARTING, S.RUNNING),
    W.SHUTDOWN_FAILED: lambda life, now: life.shutdown_failed,
}


def step(life: Life, event: Event, now: float) -> tuple[Life, tuple[lifecycle.Command, ...]]:
    """One event. `now` is monotonic seconds. Raises Illegal, then nothing has changed."""
    row = _find(life, event.kind, now)
    if row is None:
        doing = f" ({life.doing.value})" if life.doing else ""
        raise lifecycle.Illegal(f"{event.kind.value} means nothing in {life.state.name}{doing}")
    life, commands = _take(life, row, event, now)
    while life.doing is None and (row := _find(life, Kind.NEXT, now)) is not None:
        life, more = _take(life, row, Event(Kind.NEXT), now)
        commands += more
    return life, commands


def _find(life: Life, kind: Kind, now: float) -> Row | None:
    for row in TABLE:
        if life.state in row.states and kind in row.kinds and all(_GUARDS[when](life, now) for when in row.when):
            return row
    return None


def _take(life: Life, row: Row, event: Event, now: float) -> tuple[Life, tuple[lifecycle.Command, ...]]:
    life = _note(life, event)
    kind = row.want or event.kind
    desired = _desire(life, kind) if kind in DESIRED else life.desired
    commands: tuple[lifecycle.Command, ...] = (lifecycle.DropStartupDeadline(),) if row.to is S.RUNNING else ()
    if row.to is not None:
        life = _enter(life, row.to, event, now)
        desired = _settle_desired(row.to, desired)
    doing = None if row.to is not None or event.kind is Kind.KILLED else life.doing
    if row.keeps:
        doing = life.doing
    if row.run is not None:
        doing = row.run if life.state is not S.RUNNING else None
        commands = _begin(row.run)
    if desired and desired[0] is life.state:
        desired = desired[1:]
    return replace(life, desired=desired, doing=doing), commands


def _begin(phase: Phase) -> tuple[lifecycle.Command, ...]:
    if phase is Phase.KILL:
        return (lifecycle.KillProcesses(),)
    run = lifecycle.RunScript(phase)
    return (lifecycle.TakeRecord(), run) if phase in (Phase.INSTALL, Phase.STARTUP) else (run,)


def _note(life: Life, event: Event) -> Life:
    """What every event leaves in the record, whatever the row."""
    if event.generation:
        errors = life.errors if event.kind is Kind.KEEP else {}
        life = replace(life, generation=event.generation, failures=0, errors=errors)
    if event.kind in (Kind.READY, Kind.NOT_READY):
        return replace(life, ready=event.kind is Kind.READY)
    if event.kind is Kind.REINSTALL:
        return replace(life, installed=False, errors={})
    if event.kind is Kind.INSTALL_DONE:
        return replace(life, installed=life.installed or life.state is S.NEW)
    if event.kind in _NOTED and life.state in (S.STOPPING, S.UNINSTALLING):
        failed = life.state is S.STOPPING
        return replace(life, shutdown_failed=failed, code=_code(life, event), reason=event.reason)
    return life


def _enter(life: Life, to: State, event: Event, now: float) -> Life:
    if to in (S.ERRORED, S.BROKEN):
        return _fail(life, to, event, now)
    errors = life.errors
    if life.state in _COUNTED and event.kind is not Kind.NEXT:
        better = event.kind not in (*AWAY, Kind.NOT_READY)  # a request says nothing about the state's health
        errors = {state: times for state, times in errors.items() if state is not life.state or not better}
    fine = to in (S.NEW, S.RUNNING, S.FINISHED) and life.state is not S.ERRORED
    return replace(
        life,
        state=to,
        errors={} if to is S.UNINSTALLED else errors,
        installed=life.installed and to not in (S.NEW, S.UNINSTALLED),
        after_error=to is S.STOPPING and life.state in (S.ERRORED, S.BROKEN),
        shutdown_failed=False,
        code="NONE" if fine else life.code,
        reason="" if fine else life.reason,
    )


def _fail(life: Life, to: State, event: Event, now: float) -> Life:
    errors = life.errors
    if life.state in _COUNTED:
        errors = errors | {life.state: (*_recent(life, now), now)}
    noted = life.state is S.STOPPING  # the reason came with the event that failed, this one is KILLED
    return replace(
        life,
        state=to,
        errors=errors,
        failed_in=life.state,
        shutdown_failed=False,
        code=life.code if noted else _code(life, event),
        reason=life.reason if noted else event.reason,
        failures=life.failures + 1,
    )


def _recent(life: Life, now: float) -> tuple[float, ...]:
    """The errors that count for the present state: none when the last is `error_reset_s` ago."""
    times = life.errors.get(life.state, ())
    return times if times and now - times[-1] < life.error_reset_s else ()


def _code(life: Life, event: Event) -> str:
    return event.code or _CODE_OF_REPORT.get(life.state, "NONE")


def _wanted(life: Life) -> State | None:
    return life.desired[0] if life.desired else None


def _desire(life: Life, kind: Kind) -> tuple[State, ...]:
    """The desired states after a request (spec 2.2): a pending NEW and a requested removal are kept."""
    wanted = DESIRED[kind]
    if life.state is S.BROKEN and kind in (Kind.STOP, Kind.UNINSTALL):
        return life.desired if kind is Kind.STOP else (S.UNINSTALLED,)
    if life.state in (S.UNINSTALLING, S.UNINSTALLED) and kind in (Kind.STOP, Kind.UNINSTALL, Kind.RESTART):
        return (S.UNINSTALLED,)
    if S.UNINSTALLED in life.desired and kind in (Kind.STOP, Kind.RESTART):
        return life.desired
    if S.NEW in life.desired and kind in (Kind.STOP, Kind.RESTART):
        return (S.NEW, *(state for state in wanted if state is not S.INSTALLED))
    return wanted


def _settle_desired(to: State, desired: tuple[State, ...]) -> tuple[State, ...]:
    if to is S.BROKEN:
        return tuple(state for state in desired if state is S.UNINSTALLED)
    return desired or (S.RUNNING,) if to is S.ERRORED else desired
