"""Starts the scripts of components, each in a session of its own, and ends them with all their descendants.

Before a script runs a small file below the records folder says so (boot, component, version), after its start also its pid
and start time; the file goes with the process. `end_survivors` reads them at launch. They are not fsynced: if the machine
goes down, the processes it would have told of are gone too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from nucleus.core import handover, overlap
from nucleus.host import confine, descendants, exits, logs, output, users

Sink = Callable[[str, list[str]], None]  # ("stdout" or "stderr", lines)

STDOUT = "stdout"
STDERR = "stderr"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REAP_S = 1.0


class Order(Struct, frozen=True):
    """A script to run: `directory` must exist; `environment` is all the child gets, apart from the marker."""

    component: str
    version: str
    script: str
    directory: Path
    environment: Mapping[str, str]
    shell: str = "sh"
    account: users.Account | None = None  # None: the nucleus's own user


class Fact(Struct, frozen=True):
    """What a record file says; `pid` 0 means that the script had not been started when it was written."""

    boot_id: str
    component: str
    version: str
    pid: int = 0
    start: int = 0


class Process:
    """A started script."""

    def __init__(self, component: str, child: exits.Child, member: descendants.Member, record: str) -> None:
        self.component = component
        self.pid = child.pid
        self.member = member
        self.child = child
        self.record = record
        self.pipes: list[output.Lines] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """The exit code, minus the signal's number if killed. Lasts as long as the script: callers set the deadline."""
        return await asyncio.shield(self._ended)

    def running(self) -> bool:
        return not self._ended.done()

    def carry(self) -> handover.Child:
        """As the next process image takes it over."""
        return handover.Child(
            pid=self.pid,
            start=self.member.start,
            record=self.record,
            code=self._ended.result() if self._ended.done() else None,
            pipes=tuple(pipe.carry() for pipe in self.pipes),
        )

    def gone(self, code: int) -> None:
        """Called once when the child was reaped; output written before its end is handed on first."""
        for pipe in self.pipes:
            pipe.drain()
        if not self._ended.done():
            self._ended.set_result(code)


class Processes:
    """The processes of one nucleus. `records` is the folder of the record files; it also makes the owner's mark."""

    def __init__(self, records: Path, *, choose: exits.Choose = exits.choose, number: int = 0) -> None:
        self._records = records
        self._owner = owner(records)
        self._loop = asyncio.get_running_loop()
        self._exits = choose(self._loop)
        self._children: dict[str, list[Process]] = {}
        self.number = number  # of the last record file

    def spawn(self, order: Order, sink: Sink) -> Process:
        """Starts a script. Raises OSError (no such directory or shell, too many processes, script too long)."""
        self.number += 1
        record = self._records / f"{order.component}.{self.number}.json"
        fact = Fact(boot_id(), order.component, order.version)
        _write(record, fact)
        with contextlib.ExitStack() as failure, contextlib.ExitStack() as afterwards:
            failure.callback(record.unlink, missing_ok=True)
            reading, writing = [], []
            for _ in (STDOUT, STDERR):
                ends = os.pipe()
                failure.callback(os.close, ends[0])
                afterwards.callback(os.close, ends[1])
                reading.append(ends[0])
                writing.append(ends[1])
            child = self._popen(order, *writing)
            failure.pop_all()
        start = descendants.start_time(child.pid) or 0
        _write(record, msgspec.structs.replace(fact, pid=child.pid, start=start))
        process = Process(order.component, child, descendants.Member(child.pid, start), record.name)
        for descriptor, stream in zip(reading, (STDOUT, STDERR), strict=True):
            process.pipes.append(output.Lines(self._loop, descriptor, _named(sink, stream)))
        self._children.setdefault(order.component, []).append(process)
        self._watch(process, record)
        return process

    def adopt(self, component: str, carried: handover.Child, sink: Sink) -> Process:
        """Takes over a script that the process image before this one has started. Raises OSError."""
        member = descendants.Member(carried.pid, carried.start)
        process = Process(component, exits.Adopted(carried.pid), member, carried.record)
        for pipe, stream in zip(carried.pipes, (STDOUT, STDERR), strict=True):
            process.pipes.append(output.Lines(self._loop, pipe.descriptor, _named(sink, stream), pipe.rest))
        self._children.setdefault(component, []).append(process)
        if carried.code is not None:
            process.gone(carried.code)
        else:
            self._watch(process, self._records / carried.record)
        return process

    def of(self, component: str) -> tuple[Process, ...]:
        """The scripts of a component, also those that have ended and were not given up."""
        return tuple(self._children.get(component, ()))

    def pids(self, component: str) -> tuple[int, ...]:
        return tuple(one.pid for one in self._children.get(component, ()) if one.running())

    def members(self, component: str) -> frozenset[descendants.Member]:
        """Every process of a component; reads all of /proc, so call it in a thread."""
        return descendants.find(self._roots(component), f"{self._owner}:{component}")

    async def end(self, component: str, *, grace_s: float = descendants.GRACE_S) -> int:
        """Ends every process of a component, at most 10 s with the usual grace time; returns how many are left."""
        left = await self._end(self._roots(component), f"{self._owner}:{component}", grace_s)
        for process in self._children.pop(component, []):
            if left and process.running():
                self._children.setdefault(component, []).append(process)
                continue
            with contextlib.suppress(TimeoutError):  # it is dead, only the news of it may be under way
                async with asyncio.timeout(_REAP_S):
                    await process.wait()
            for pipe in process.pipes:
                pipe.drain()
                pipe.close()
        return left

    def forget(self, process: Process) -> None:
        """Gives up a script that has ended, if it has; what it left behind is still ended with the component."""
        if process.running():
            return
        for pipe in process.pipes:
            pipe.close()
        self._children[process.component].remove(process)

    async def end_one(self, process: Process) -> int:
        """Ends one script with its descendants and its session; other scripts of the component stay."""
        return await self._end([process.member], _NOBODY, descendants.GRACE_S)

    def kill_now(self) -> None:
        """KILL to everything of every component, without a word before; blocks until our children are reaped."""
        for _ in range(3):  # again for what was born while we were looking
            for member in descendants.find(self._roots(""), f"{self._owner}:"):
                descendants.send(member, signal.SIGKILL)
        for process in [one for many in self._children.values() for one in many]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.child.wait(_REAP_S)

    def close(self) -> None:
        """Gives up all descriptors; call it when nothing runs any more."""
        self._exits.close()
        for process in [one for many in self._children.values() for one in many]:
            for pipe in process.pipes:
                pipe.close()

    async def _end(self, roots: list[descendants.Member], marker: str, grace_s: float) -> int:
        """The search runs in a thread (milliseconds); it gets a list of its own, the loop goes on starting scripts."""
        ending = descendants.Ending(lambda: descendants.find(roots, marker), grace_s=grace_s)
        while (pause_s := await asyncio.to_thread(ending.look)) is not None:  # noqa: ASYNC110  nobody tells of grandchildren
            await asyncio.sleep(pause_s)
        return len(ending.left)

    def _roots(self, component: str) -> list[descendants.Member]:
        """The running scripts of a component, of all if it is empty."""
        known = self._children.items()
        return [one.member for name, many in known for one in many if component in ("", name) and one.running()]

    def _popen(self, order: Order, stdout: int, stderr: int) -> exits.Child:
        marker = {descendants.MARKER: f"{self._owner}:{order.component}"}
        account = order.account
        return subprocess.Popen(
            [order.shell, "-c", order.script],
            cwd=order.directory,
            env={**order.environment, **marker},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            user=account.uid if account is not None else None,
            group=account.gid if account is not None else None,
            extra_groups=account.groups if account is not None else None,
        )

    def _watch(self, process: Process, record: Path) -> None:
        def gone(code: int) -> None:
            record.unlink(missing_ok=True)
            process.gone(code)

        try:
            self._exits.watch(process.child, gone)
        except OSError:
            process.child.kill()
            gone(process.child.wait())
            raise


def owner(records: Path) -> str:
    """The mark of a nucleus in the environment of its processes: two nuclei never end each other's."""
    return hashlib.sha256(str(records.resolve()).encode()).hexdigest()[:16]


def boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def end_survivors(directory: Path, log: logs.Log, keep: Collection[str] = ()) -> int:
    """Ends what a killed predecessor left running and waits for it; returns how many processes that were.

    Blocks for at most 10 s. A recorded pid counts only with the same boot and start time. What belongs to the components
    `keep` stays; then only what has a record counts.
    """
    groups, facts = confine.Groups(confine.parent(owner(directory))), _read(directory)
    facts = {path: one for path, one in facts.items() if one.component.removesuffix(overlap.SUFFIX) not in keep}
    names = {one.component for one in facts.values()} if keep else {""}
    for name in names:
        with contextlib.suppress(confine.Unavailable):
            groups.thaw(name.removesuffix(overlap.SUFFIX)) if name else groups.thaw_all()
    roots = [descendants.Member(one.pid, one.start) for one in facts.values() if one.pid and one.boot_id == boot_id()]
    marks = [f"{owner(directory)}:{name}" for name in names]
    ending = descendants.Ending(lambda: frozenset().union(*(descendants.find(roots, mark) for mark in marks)))
    pause = threading.Event()
    while (pause_s := ending.look()) is not None:
        pause.wait(pause_s)
    for path in facts if keep else directory.glob("*.json"):
        path.unlink(missing_ok=True)
    if ending.told:
        told = ", ".join(sorted({one.component.removesuffix(overlap.SUFFIX) for one in facts.values()}))
        log.warning("process.survivors_ended", processes=ending.told, components=told, left=len(ending.left))
    return ending.told


def _read(directory: Path) -> dict[Path, Fact]:
    """The records of a folder. A torn one is skipped: its processes are found by their environment."""
    found = {}
    for path in directory.glob("*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found[path] = msgspec.json.decode(path.read_bytes(), type=Fact)
    return found


def _write(path: Path, fact: Fact) -> None:
    """A full disk must not keep a component from running: without a record the environment still tells."""
    with contextlib.suppress(OSError):
        path.write_bytes(msgspec.json.encode(fact))


def _named(sink: Sink, stream: str) -> Callable[[list[str]], None]:
    return lambda lines: sink(stream, lines)


_NOBODY = "-"  # a mark that no process has
