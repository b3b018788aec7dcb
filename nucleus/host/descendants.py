"""Finds and ends every process that belongs to a component, also those whose parent is dead or that changed session.

A process belongs if it is a recorded child or in that child's session or group, if its environment carries the component's
marker (`MARRAM_OWNER=<owner>:<component>`, inherited by whatever a script starts), or if it descends from one of these.
Everything is read from /proc; a process is a (pid, start time) pair, so that a reused pid is never taken for an old one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from msgspec import Struct

MARKER = "MARRAM_OWNER"
GRACE_S = 5.0  # between TERM and KILL (UnixExec.close of the original)
KILL_S = 5.0  # a process that survives KILL for so long hangs in the kernel; nobody waits longer
LONGEST_PAUSE_S = 0.1
_PROC = Path("/proc")


class Member(Struct, frozen=True):
    """A process; `start` is its start time in clock ticks since boot."""

    pid: int
    start: int


class _Seen(Struct, frozen=True):
    start: int
    parent: int
    group: int
    session: int
    zombie: bool


def start_time(pid: int) -> int | None:
    """Start time in clock ticks since boot, None if there is no such process."""
    seen = _read(pid)
    return seen.start if seen is not None else None


def find(roots: Collection[Member], marker: str) -> frozenset[Member]:
    """Living processes that belong to `roots` (our children, leaders of their sessions) or whose environment has `marker`.

    `marker` is matched from its start, so `<owner>:` finds all components. The calling process is never among them.
    """
    seen = _read_all()
    # The session of a dead and reaped leader is not followed: its number may belong to somebody else by now.
    leaders = {root.pid for root in roots if root.pid in seen and seen[root.pid].start == root.start}
    found = {pid for pid, one in seen.items() if pid in leaders or one.session in leaders or one.group in leaders}
    found |= {pid for pid in seen.keys() - found if _is_marked(pid, marker)}
    found = _with_descendants(found, seen) - {os.getpid()}
    return frozenset(Member(pid, seen[pid].start) for pid in found if not seen[pid].zombie)


class Ending:
    """TERM to all, KILL to what is left after the grace time; also to what is born meanwhile.

    Call `look` until it returns None, waiting the returned seconds in between. `left` then holds what could not be ended.
    """

    def __init__(self, search: Callable[[], frozenset[Member]], *, grace_s: float = GRACE_S) -> None:
        self._search = search
        self._grace_s = grace_s
        self._began = time.monotonic()
        self._told: set[Member] = set()
        self._pause_s = 0.002
        self.left: frozenset[Member] = frozenset()

    @property
    def told(self) -> int:
        """How many processes were signalled."""
        return len(self._told)

    def look(self) -> float | None:
        self.left = self._search()
        passed_s = time.monotonic() - self._began
        if not self.left or passed_s > self._grace_s + KILL_S:
            return None
        last = passed_s >= self._grace_s
        for member in self.left if last else self.left - self._told:
            send(member, signal.SIGKILL if last else signal.SIGTERM)
        self._told |= self.left
        self._pause_s = min(self._pause_s * 1.6, LONGEST_PAUSE_S)
        return min(self._pause_s, max(self._grace_s - passed_s, 0.002)) if not last else self._pause_s


def send(member: Member, number: signal.Signals) -> None:
    """Signals exactly this process, never a later one with the same pid (where the kernel has pidfd, 5.3)."""
    try:
        descriptor = os.pidfd_open(member.pid) if hasattr(os, "pidfd_open") else -1
    except ProcessLookupError:
        return
    except OSError:  # ENOSYS, or no descriptor left
        descriptor = -1
    try:
        if start_time(member.pid) != member.start:
            return
        if descriptor >= 0:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(member.pid, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _with_descendants(found: set[int], seen: Mapping[int, _Seen]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, one in seen.items():
        children.setdefault(one.parent, []).append(pid)
    reached: set[int] = set()
    todo = list(found)
    while todo:
        pid = todo.pop()
        if pid not in reached:
            reached.add(pid)
            todo += children.get(pid, ())
    return reached


def _read_all() -> dict[int, _Seen]:
    names = (int(name) for name in os.listdir(_PROC) if name.isdigit()) if _PROC.exists() else ()  # noqa: PTH208  cheaper
    return {pid: seen for pid in names if (seen := _read(pid)) is not None}


def _read(pid: int) -> _Seen | None:
    """`/proc/<pid>/stat`; the name in brackets may hold spaces and brackets, the fields follow the last one."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return _Seen(
            zombie=fields[0] in (b"Z", b"X"),
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            start=int(fields[19]),
        )
    except (OSError, IndexError, ValueError):
        return None


def _is_marked(pid: int, marker: str) -> bool:
    """Whether the environment the process was started with has the marker; `<owner>:` stands for every component."""
    wanted = f"\0{MARKER}={marker}".encode()
    try:
        environment = b"\0" + (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # ended, or another user's
        return False
    return (wanted if marker.endswith(":") else wanted + b"\0") in environment
