"""What the demo plays on: a folder, the processes it started, the marram verbs it calls. Everything ends with the stage."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich import console, markup

from cloud.cli import session as sessions
from nucleus.cli import __main__ as marram
from nucleus.cli import exits

T = TypeVar("T")

DEVICES = ("turbine-1", "turbine-2")
GROUP = "turbines"
MODEL = "com.example.turbine.PowerCurveModel"
AGENT = "marram.ModelAgent"
MONITOR = "com.example.turbine.Monitor"

_SOCKET_LIMIT = 107  # bytes of a Unix socket's path; the official IPC client knows no way around it
_LOOK_S = 0.05
_STOP_S = 15.0


class Stage:
    """Use it as a context manager: what a predecessor left is removed, what is started here is stopped at the end."""

    def __init__(self, folder: Path, repository: Path, out: console.Console) -> None:
        self.folder = folder
        self.repository = repository
        self.out = out
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = -1

    @property
    def cloud(self) -> Path:
        return self.folder / "cloud"

    def device(self, thing: str) -> Path:
        return self.folder / thing

    def session(self) -> sessions.Session:
        return sessions.open_session(self.cloud)

    def say(self, *arguments: str, background: bool = False) -> None:
        """Shows a command as a reader in the repository would type it."""
        typed = shlex.join(self._short(one) for one in arguments)
        self.out.print(f"[bold]$ marram {markup.escape(typed)}{' &' if background else ''}[/]")

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a marram verb that stays; its output goes to `<folder>/<name>.log`."""
        self.say(*arguments, background=True)
        command = [sys.executable, "-m", "nucleus.cli", *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        return self._started[name]

    def kill(self, name: str) -> None:
        """SIGKILL to the one process, as a power cut would; what it started stays."""
        process = self._started.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        return self._started[name].pid

    def verb(self, *arguments: str, expect: tuple[int, ...] = (exits.OK,)) -> int:
        """Shows and runs one marram command as a user would type it. Raises Failure for another exit code."""
        self.say(*arguments)
        code = marram.run(arguments)
        if code not in expect:
            raise exits.Failure(
                f"`marram {' '.join(arguments[:2])}` ended with {code}, expected {expect}", code or exits.ERROR
            )
        return code

    def wait(self, what: str, look: Callable[[], T | None], limit_s: float) -> T:
        """The first result of `look` that is neither None nor false. Raises Failure when the time is up."""
        pause, deadline = threading.Event(), time.monotonic() + limit_s
        while True:
            found = look()
            if found:
                return found
            for name, process in self._started.items():
                if process.poll() is not None:
                    raise exits.Failure(f"{name} ended with {process.returncode} {self._last_words(name)}")
            if time.monotonic() >= deadline:
                raise exits.Failure(
                    f"{what} did not happen within {limit_s:g} s; see the logs in {self.folder}", exits.TIMED_OUT
                )
            pause.wait(_LOOK_S)

    def stop(self) -> int:
        """Stops everything in the reverse order of its start; returns how many processes had to be killed."""
        killed = 0
        for name in reversed(list(self._started)):
            process = self._started.pop(name)
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        return killed + _sweep(self.folder)

    def __enter__(self) -> Stage:
        longest = self.device(DEVICES[0]) / "ipc.socket"
        if len(os.fsencode(str(longest))) > _SOCKET_LIMIT:
            why = f"the path {longest} is longer than a Unix socket's may be ({_SOCKET_LIMIT} bytes)"
            raise exits.Failure(f"cannot play the demo in {self.folder}: {why}; give --to with a shorter one")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise exits.Failure(f"cannot play the demo in {self.folder}: another one plays there; give --to") from None
        _sweep(self.folder)
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        os.close(self._lock)

    def _short(self, argument: str) -> str:
        for base in (Path.cwd(), self.repository):
            argument = argument.replace(f"{base}/", "")
        return argument

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return f"({lines[-1]})" if lines else ""


def component_processes(device: Path, component: str) -> list[psutil.Process]:
    """The processes of a component: those that work in its work folder, whoever their parent is by now."""
    return list(_inside(device / "work" / component))


def trees(device: Path, component: str) -> int:
    """How many process trees a component has: its processes whose parent is not one of them."""
    found = component_processes(device, component)
    pids = {process.pid for process in found}
    return sum(process.ppid() not in pids for process in found)


def main_pid(device: Path, component: str) -> int:
    """The pid of a component's only tree, 0 without one."""
    found = component_processes(device, component)
    pids = {process.pid for process in found}
    return next((process.pid for process in found if process.ppid() not in pids), 0)


def counters(device: Path) -> dict[str, Any]:
    """What the monitor counted so far, as it writes it once a second; empty before the first time."""
    try:
        read: dict[str, Any] = json.loads((device / "work" / MONITOR / "counters.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return read


def pss_mib(pid: int) -> float:
    """The proportional memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _inside(folder: Path) -> Iterator[psutil.Process]:
    wanted = str(folder)
    for process in psutil.process_iter():
        try:
            where = process.cwd()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if (where == wanted or where.startswith(wanted + os.sep)) and process.pid != os.getpid():
            yield process


def _sweep(folder: Path) -> int:
    """Kills what works in the folder: components of a killed nucleus, and all of a demo that was itself killed."""
    found = list(_inside(folder))
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=_STOP_S)
    return len(found)
