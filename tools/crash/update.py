"""The own update under its real loader: the daemon killed after every durable write of it, old program and new one alike,
and started on every disk that a loss of power may leave of its configuration, deployments and launches.

What a launch directory holds besides its file `python` is as it was when the barrier before that file (os.sync) ended.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nucleus.core import release
from tools import local_nucleus
from tools import system as systems
from tools.crash import disk, recorder
from tools.machine import WITHIN_S, Machine

HELLO, VERSION = "com.example.Hello", "0.9.0"
HOOK = (
    Path(recorder.__file__).read_text()
    + """

import shutil
import sys

_root = Path(sys.argv[sys.argv.index("--root") + 1])
_log, _kept = _root.parent / "log", _root.parent / "launches"
_recorder = Recorder(_root, count=_root.parent / "crash", log=_log if _log.exists() else None)
_recorder.install()
_barrier = os.sync


def _sync() -> None:
    _barrier()
    for one in (_root / "alts").iterdir() if _log.exists() else ():
        if (one / "venv").is_dir() and not (_kept / one.name).exists() and not one.is_symlink():
            shutil.copytree(one, _kept / one.name, symlinks=True)


os.sync = _sync
"""
)
RUN = """
import runpy
sys.argv = [sys.argv[0], *sys.argv[4:]]  # what stands behind -I -m nucleus
runpy.run_module("nucleus", run_name="__main__")
"""
NEW_PROGRAM = b"""
from pathlib import Path
from nucleus import app
sys.exit(app.run(Path(sys.argv[sys.argv.index("--root") + 1])))
"""
BROKEN = b"raise SystemExit('cannot start on purpose')\n"


class UpdateCase:
    """A root with a running component; `good` says whether the new release starts."""

    def __init__(self, folder: Path, *, good: bool) -> None:
        self.name = "own update" if good else "own update that does not start"
        self._good = good
        self._folder = folder / self.name.replace(" ", "-")
        self._folder.mkdir(parents=True)
        self._root, self._base = self._folder / "r", self._folder / "base"
        self._count, self._log = self._folder / "crash", self._folder / "log"
        self._prepare()

    def kills(self) -> int:
        """How many durable writes the undisturbed update makes: each is a place to be killed at."""
        self._log.touch()
        wrong = self._update(0)
        if wrong:
            raise AssertionError(f"{self.name}, undisturbed: {wrong}")
        self._root.rename(self._folder / "updated")
        self._log.rename(self._folder / "recorded")
        return int(self._count.read_text().split()[1])

    def kill_at(self, number: int) -> list[str] | None:
        """Kills at the n-th durable write behind the request; what is wrong at the end, None if there were fewer writes."""
        wrong = self._update(number)
        reached = int(self._count.read_text().split()[1]) >= number
        return [f"{self.name}, killed at write {number}: {one}" for one in wrong] if reached else None

    def disks(self) -> list[tuple[str, dict[str, bytes]]]:
        """Every disk that a loss of power may leave; `kills` has to be called before."""
        self._fresh()
        return list(disk.states(self._root, disk.read_log(self._folder / "recorded")))

    def power_lost(self, label: str, files: dict[str, bytes]) -> list[str]:
        """Starts the loader on a rebuilt disk, waits until nothing moves, returns what is wrong then."""
        self._fresh()
        self._count.unlink(missing_ok=True)
        if (self._folder / "launches").exists():
            shutil.copytree(self._folder / "launches", self._root / "alts", symlinks=True, dirs_exist_ok=True)
        if "names new" in label:  # artifacts are written without a barrier: there or not
            for one in ("artifacts", "artifacts-unarchived"):
                source = self._folder / "updated" / "packages" / one
                if source.exists():
                    shutil.copytree(source, self._root / "packages" / one, symlinks=True, dirs_exist_ok=True)
        disk.restore(self._root, files)
        machine = Machine(self._root)
        try:
            systems.wait_for(lambda: _runs(machine) and not _moves(machine), "everything to rest", WITHIN_S, 0.1)
            good = machine.running() != "init"
            return [f"{self.name}, power lost after {label}: {one}" for one in self._judge(machine, good)]
        finally:
            machine.close()

    def _fresh(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._base, self._root, symlinks=True, ignore=shutil.ignore_patterns("ipc.socket"))

    def _update(self, number: int) -> list[str]:
        """The update with a kill at a durable write (0: none); what is wrong at its end."""
        self._fresh()
        self._count.unlink(missing_ok=True)
        machine = Machine(self._root)
        try:
            systems.wait_for(lambda: _runs(machine), "the component", WITHIN_S, 0.1)
            self._count.write_text(f"{number} 0")
            status = machine.deploy({release.COMPONENT: VERSION})["status"]
            systems.wait_for(lambda: _runs(machine), "the component to run again", WITHIN_S, 0.1)
            expected = "SUCCEEDED" if self._good else "FAILED"
            wrong = [] if status == expected else [f"the deployment ended {status}, expected {expected}"]
            return [*wrong, *self._judge(machine, self._good)]
        finally:
            machine.close()

    def _judge(self, machine: Machine, updated: bool) -> Iterator[str]:
        """Links, versions and processes must fit together; `updated` says which release must run."""
        if updated and not self._good:
            yield "a release that does not start is said to run"
        if (machine.running() == "init") is updated:
            yield f"the launch {machine.running()} runs"
        versions = machine.states()
        if (versions.get(release.COMPONENT) == (VERSION, "FINISHED")) is not updated:
            yield f"the components are {versions}"
        found = local_nucleus.pids(self._root)
        if {name: len(many) for name, many in found.items()} != {HELLO: 1}:
            yield f"the processes are {found}"
        alts = self._root / "alts"
        if not (alts / "current" / "python").is_file():
            yield "current leads nowhere"
        if (alts / "new").is_symlink():
            yield "a switch has begun and not ended"

    def _prepare(self) -> None:
        machine = Machine(self._root)
        try:
            hello = {"RecipeFormatVersion": "2020-01-25", "ComponentName": HELLO, "ComponentVersion": "1.0.0"}
            machine.publish(hello | {"Manifests": [{"Lifecycle": {"Run": "exec sleep 100000"}}]}, {})
            ended = machine.deploy({HELLO: "1.0.0"})
            if ended["status"] != "SUCCEEDED":
                raise AssertionError(f"cannot prepare {self.name}: {ended}")
            program = HOOK.encode() + NEW_PROGRAM if self._good else BROKEN
            machine.publish_nucleus(VERSION, {"nucleus/__main__.py": program})
        finally:
            machine.close()
        self._hook_the_first()
        self._root.rename(self._base)

    def _hook_the_first(self) -> None:
        """The launch that is installed runs the hook before the working tree's nucleus."""
        script = self._folder / "hooked.py"
        script.write_text(HOOK + RUN)
        python = self._folder / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        (self._root / "alts" / "init" / "python").write_text(f"{python}\n")


def _moves(machine: Machine) -> bool:
    found = machine.call("aws.greengrass#ListLocalDeployments", {}).get("localDeployments", [])
    return any(one["status"] in ("QUEUED", "IN_PROGRESS") for one in found)


def _runs(machine: Machine) -> bool:
    return machine.states().get(HELLO) == ("1.0.0", "RUNNING")


def main() -> None:
    """For looking: `python -m tools.crash.update good|bad KILL… -- DISK…`, numbers of places and of disks."""
    with tempfile.TemporaryDirectory(prefix="mu") as folder:
        case = UpdateCase(Path(folder), good=sys.argv[1] == "good")
        places, disks = case.kills(), case.disks()
        print(places, "places,", len(disks), "disks")
        numbers = sys.argv[2:]
        divide = numbers.index("--") if "--" in numbers else len(numbers)
        for number in map(int, numbers[:divide]):
            print(number, case.kill_at(number) or "well")
        for number in map(int, numbers[divide + 1 :]):
            print(disks[number][0], case.power_lost(*disks[number]) or "well")


if __name__ == "__main__":
    main()
