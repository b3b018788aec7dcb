"""Replaces the program of this process and keeps what must live on: children, descriptors, and a text for the new program.

The pid stays, so children stay children. The text lies in sealed memory whose descriptor an environment variable names. Every
other descriptor is closed by the kernel. SIGTERM and SIGINT are blocked until the new program can hear them (actors/leaving.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from nucleus.core import handover

VARIABLE = "MARRAM_HANDOVER"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FIRST = 3  # after standard input, output and error


def receive(root: Path) -> tuple[handover.State | None, str]:
    """What was handed over to this program, or why it cannot be used; then every descriptor of it is closed.

    Call it before anything is opened. (None, "") after an ordinary start.
    """
    named = os.environ.pop(VARIABLE, "")
    if not named:
        return None, ""
    try:
        data = _read(int(named))
        state = handover.decode(data, pid=os.getpid(), root=str(root))
        for descriptor in handover.descriptors(state):
            os.set_inheritable(descriptor, False)
    except (handover.Unreadable, OSError, ValueError) as error:
        close_but(())
        return None, str(error)
    return state, ""


def execute(command: Sequence[str], data: bytes, keep: Collection[int], unless: Collection[int] = ()) -> NoReturn:
    """Runs another program in this process, with `data` for its `receive`. Raises OSError; then all is as before.

    `unless` are signals that were heard: when there is one at the last moment, InterruptedError.
    """
    memory = os.memfd_create("marram-handover", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(memory, left) :]
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        for descriptor in _open():
            os.set_inheritable(descriptor, descriptor in keep or descriptor == memory)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if unless:
            raise InterruptedError(errno.EINTR, "it was told to stop")
        os.execve(command[0], list(command), os.environ | {VARIABLE: str(memory)})  # noqa: S606
    finally:  # only after a failure
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(memory)
        for descriptor in _open():
            os.set_inheritable(descriptor, False)


def close_but(keep: Collection[int]) -> None:
    """Closes every descriptor above standard error, whoever thinks to have it, apart from `keep`."""
    for descriptor in _open():
        if descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def reap() -> None:
    """Forgets children of the program before this one that have ended; only before this one starts any."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def python(interpreter: str, *arguments: str) -> list[str]:
    """The command line of another Python with the same isolation from its surroundings as this one."""
    flags = ["-I"] if sys.flags.isolated else ["-P"] if sys.flags.safe_path else []
    return [interpreter, *flags, *arguments]


def _open() -> list[int]:
    """Open descriptors above standard error; the one that reads the folder is closed again and left out."""
    with os.scandir("/proc/self/fd") as entries:
        found = [int(entry.name) for entry in entries]
    return [one for one in found if one >= _FIRST and _is_open(one)]


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _read(descriptor: int) -> bytes:
    """All of the sealed memory; closes it. Raises OSError."""
    try:
        size, found = os.fstat(descriptor).st_size, b""
        while len(found) < size and (piece := os.pread(descriptor, size - len(found), len(found))):
            found += piece
        return found
    finally:
        os.close(descriptor)
