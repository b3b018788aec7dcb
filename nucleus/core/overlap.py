"""When a component's new version starts beside the old one (`marram.update.overlap`), and what its health shows meanwhile.

The ordinary order stops the old process first (spec/nucleus.md 2.6); a component opts into the other order, because both
versions must bear each other: one work folder, one log, one control group, one token. The old one has to have opted in, too: it
must be of the kind that lets a successor take over.
"""

from __future__ import annotations

from collections.abc import Set

from msgspec import structs

from nucleus.core import care
from nucleus.core.component import Component
from nucleus.core.lifecycle import Event, Health, Kind, Life, State

SUFFIX = (
    "~"  # no component's name has it: the key of the second one of a name, and the mark of every other one's processes
)
_REPORTS = (Kind.REPORTED_RUNNING, Kind.REPORTED_ERRORED, Kind.REPORTED_FINISHED)


def applies(old: Component, new: Component, changed: Set[str]) -> bool:
    """Whether `new` may start beside `old`; `changed` are the components that are stopped in the same deployment.

    Not with Run: only a Startup can say when it is RUNNING. Not with what needs the old one gone: another user's files,
    state to bring back, heartbeats (whose are they?), a dependency that is stopped.
    """
    if changed & new.dependencies.keys() or old.run_with.posix_user != new.run_with.posix_user:
        return False
    return all(_may(one) for one in (old, new))


def can_begin(life: Life) -> bool:
    """Only what runs undisturbed can stay beside a successor."""
    return life.state is State.RUNNING and not life.desired and life.doing is None


def is_over(life: Life) -> bool:
    """The successor has come up."""
    return not life.desired and life.doing is None and life.state in (State.RUNNING, State.FINISHED)


def is_successors(event: Event, life: Life) -> bool:
    """Whether a report by UpdateState is about the successor: while it comes up, the old one has nothing to say."""
    return event.kind in _REPORTS and life.state in (State.NEW, State.INSTALLED, State.STARTING)


def process_name(name: str, old: str) -> str:
    """Under which name the successor's processes are known, so that ending one's never ends the other's."""
    return name if old.endswith(SUFFIX) else name + SUFFIX


def health(main: Health, successor: Health) -> Health:
    """What shows while the old one (`main`) serves and its successor comes up, or has failed for good."""
    told = f"version {successor.version} beside the old one"
    shown = structs.replace(
        main,
        version=successor.version,
        settled=False,
        generation=successor.generation,
        failures=successor.failures,
        pids=main.pids + successor.pids,
        waiting_for=f"{told}: {successor.waiting_for or successor.state.name}",
    )
    if successor.state is not State.BROKEN:
        return shown
    return structs.replace(
        shown,
        state=State.BROKEN,
        settled=successor.settled,
        status_code=successor.status_code,
        reason=f"{successor.reason} (the version before it still runs)",
        since_at=successor.since_at,
        waiting_for="" if successor.settled else shown.waiting_for,
    )


def leaving_health(main: Health, old: Health) -> Health:
    """What shows while the old one is ended."""
    return structs.replace(
        main,
        settled=False,
        pids=main.pids + old.pids,
        waiting_for=main.waiting_for or f"the end of the other process of it: {old.waiting_for or old.state.name}",
    )


def _may(one: Component) -> bool:
    try:
        wish = care.read(one.marram)
    except care.NotValid:
        return False
    beats = wish.health_check is not None and wish.health_check.kind == care.HEARTBEAT
    phases = bool(one.lifecycle.get("startup")) and not one.lifecycle.get("run")
    return wish.overlap and phases and not beats and wish.rollback_state is None
