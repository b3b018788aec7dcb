"""Tells when a child process ends, without a thread for each child.

`choose` takes pidfd where the kernel has it (5.3), else one thread for all children.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Protocol

Choose = Callable[[asyncio.AbstractEventLoop], "Exits"]


class Child(Protocol):
    """A child process: what subprocess.Popen offers of it."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


Gone = Callable[[int], None]  # gets the exit code, minus the signal's number for a killed child

UNKNOWN = 255
LOOK_EVERY_S = 0.05  # of the thread on old kernels


class Adopted:
    """A child that the process image before this one has started: it has our pid, so the child is ours."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._reap(os.WNOHANG)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Blocks. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + (timeout or 0.0)
        pause = threading.Event()
        while (code := self.poll()) is None:
            if timeout is None:
                self._reap(0)
            elif time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            else:
                pause.wait(LOOK_EVERY_S)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _reap(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # somebody else has reaped it: how it ended is not known
            self._code = UNKNOWN
            return
        if pid:
            self._code = os.waitstatus_to_exitcode(status)


class Exits(Protocol):
    """`watch` calls `gone` in the loop's thread, once, after the child was reaped."""

    def watch(self, child: Child, gone: Gone, /) -> None: ...
    def close(self) -> None: ...


def choose(loop: asyncio.AbstractEventLoop) -> Exits:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return ThreadExits(loop)
    return PidfdExits(loop)


class PidfdExits:
    """A descriptor per child becomes readable when the child ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[int] = set()

    def watch(self, child: Child, gone: Gone) -> None:
        """Raises OSError when no descriptor is left."""
        descriptor = os.pidfd_open(child.pid)
        self._open.add(descriptor)
        self._loop.add_reader(descriptor, self._ended, descriptor, child, gone)

    def close(self) -> None:
        for descriptor in self._open:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._open.clear()

    def _ended(self, descriptor: int, child: Child, gone: Gone) -> None:
        code = child.poll()
        if code is None:
            return
        self._loop.remove_reader(descriptor)
        self._open.discard(descriptor)
        os.close(descriptor)
        gone(code)


class ThreadExits:
    """One thread looks at all children; it runs only while there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()  # between the loop and the one thread
        self._wake = threading.Event()
        self._children: dict[int, tuple[Child, Gone]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, child: Child, gone: Gone) -> None:
        with self._lock:
            self._children[child.pid] = (child, gone)
            if self._thread is None:
                self._wake.clear()
                self._thread = threading.Thread(target=self._look, name="children", daemon=True)
                self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._children.clear()
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join()

    def _look(self) -> None:
        while True:
            with self._lock:
                for pid, (child, gone) in list(self._children.items()):
                    if _has_ended(pid):
                        del self._children[pid]
                        self._loop.call_soon_threadsafe(self._ended, child, gone)
                if not self._children:
                    self._thread = None
                    return
            self._wake.wait(LOOK_EVERY_S)

    def _ended(self, child: Child, gone: Gone) -> None:
        gone(child.wait())


def _has_ended(pid: int) -> bool:
    """Looks without reaping: only the loop's thread reaps, so that nobody signals a pid that is free again."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
