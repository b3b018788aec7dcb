"""Runs `marram` for tests: quick verbs in this process, those that stay as a child that the test ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.cli import __main__ as command

_STARTED_WITHIN_S = 30


class Result(Struct, frozen=True):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path) -> Result:
    """One command line as the user's shell would run it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.run([str(one) for one in arguments])
    return Result(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def running(log: Path, ready: Callable[[], bool], *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A verb that stays, once it is ready; ended at the end of the block."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MARRAM_")}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "nucleus.cli", *(str(one) for one in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
        )
    try:
        until(
            ready,
            lambda: f"{arguments} is not ready: {process.poll()} {log.read_text(errors='replace')[-2000:]}",
            process,
        )
        yield process
    finally:
        process.terminate()
        process.wait(20)


def until(
    holds: Callable[[], bool], otherwise: Callable[[], str], process: subprocess.Popen[bytes] | None = None
) -> None:
    """Waits for a condition; fails with `otherwise()` when it takes too long or the process ends."""
    pause, deadline = threading.Event(), time.monotonic() + _STARTED_WITHIN_S
    while not holds():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise AssertionError(otherwise())
        if process is None:
            pause.wait(0.02)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
