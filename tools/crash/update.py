"""The own update under its real loader, the daemon killed after every durable write of it, old program and new one alike.

Not here: losses of power. The links of the launches are renamed by `host/files`, whose writes the other scenarios replay;
a kill between two of their renames is repaired by the loader (tests/nucleus/launch).
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
from tools.machine import WITHIN_S, Machine

HELLO, VERSION = "com.example.Hello", "0.9.0"
HOOK = Path(__file__).with_name("hook.py")
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
        self._count = self._folder / "crash"
        self._prepare()

    def kills(self) -> int:
        """How many durable writes the undisturbed update makes: each is a place to be killed at."""
        wrong = self.kill_at(0)
        if wrong:
            raise AssertionError(f"{self.name}, undisturbed: {wrong}")
        return int(self._count.read_text().split()[1])

    def kill_at(self, number: int) -> list[str]:
        """Kills at the n-th durable write behind the request (0: never); returns what is wrong at the end."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._base, self._root, symlinks=True, ignore=shutil.ignore_patterns("ipc.socket"))
        self._count.unlink(missing_ok=True)
        machine = Machine(self._root)
        try:
            systems.wait_for(lambda: _runs(machine), "the component", WITHIN_S, 0.1)
            self._count.write_text(f"{number} 0")
            ended = machine.deploy({release.COMPONENT: VERSION})
            systems.wait_for(lambda: _runs(machine), "the component to run again", WITHIN_S, 0.1)
            return [f"{self.name}, killed at write {number}: {one}" for one in self._judge(machine, ended["status"])]
        finally:
            machine.close()

    def _judge(self, machine: Machine, status: str) -> Iterator[str]:
        expected = "SUCCEEDED" if self._good else "FAILED"
        if status != expected:
            yield f"the deployment ended {status}, expected {expected}"
        if (machine.running() == "init") is self._good:
            yield f"the launch {machine.running()} runs"
        versions = machine.states()
        if (versions.get(release.COMPONENT) == (VERSION, "FINISHED")) is not self._good:
            yield f"the components are {versions}"
        found = local_nucleus.pids(self._root)
        if {name: len(many) for name, many in found.items()} != {HELLO: 1}:
            yield f"the processes are {found}"

    def _prepare(self) -> None:
        machine = Machine(self._root)
        try:
            hello = {"RecipeFormatVersion": "2020-01-25", "ComponentName": HELLO, "ComponentVersion": "1.0.0"}
            machine.publish(hello | {"Manifests": [{"Lifecycle": {"Run": "exec sleep 100000"}}]}, {})
            ended = machine.deploy({HELLO: "1.0.0"})
            if ended["status"] != "SUCCEEDED":
                raise AssertionError(f"cannot prepare {self.name}: {ended}")
            program = HOOK.read_bytes() + NEW_PROGRAM if self._good else BROKEN
            machine.publish_nucleus(VERSION, {"nucleus/__main__.py": program})
        finally:
            machine.close()
        self._hook_the_first()
        self._root.rename(self._base)

    def _hook_the_first(self) -> None:
        """The launch that is installed runs the hook before the working tree's nucleus."""
        script = self._folder / "hooked.py"
        script.write_text(HOOK.read_text() + RUN)
        python = self._folder / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        (self._root / "alts" / "init" / "python").write_text(f"{python}\n")


def _runs(machine: Machine) -> bool:
    return machine.states().get(HELLO) == ("1.0.0", "RUNNING")


def main() -> None:
    """One place, for looking: `python -m tools.crash.update good|bad NUMBER`."""
    with tempfile.TemporaryDirectory(prefix="mu") as folder:
        case = UpdateCase(Path(folder), good=sys.argv[1] == "good")
        print(case.kills(), "places")
        for number in map(int, sys.argv[2:]):
            print(number, case.kill_at(number) or "well")


if __name__ == "__main__":
    main()
