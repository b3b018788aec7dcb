"""Runs scenarios with kills and with rebuilt disks, and judges every end."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.crash import disk, scenarios, update

DEADLINE_S = 100


class Case:
    """One scenario below `folder`; `base` holds the device after what comes before."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.scenario = scenarios.SCENARIOS[name]
        self._folder = folder / name.replace(" ", "-")
        self._folder.mkdir(parents=True)
        self._base = self._folder / "base"
        self._root = self._folder / "r"
        self._base.mkdir()
        if self.scenario.before:
            self._root.mkdir()
            self._run("--before")
            self._base.rmdir()
            self._root.rename(self._base)

    def kills(self) -> int:
        """How many durable writes the undisturbed scenario makes: each is a place to be killed at."""
        self._fresh()
        told = self._run("--log", str(self._folder / "log"))
        assert told is not None
        wrong = self._judge(told)
        assert not wrong, f"{self.name}, undisturbed: {wrong}"
        return int(told["synced"])

    def kill_at(self, number: int) -> list[str] | None:
        """Kills at the n-th durable write, starts again, returns what is wrong then; None if there were fewer writes."""
        self._fresh()
        if self._run("--kill-after", str(number)) is not None:
            return None
        told = self._run()
        return [f"{self.name}, killed at write {number}: {one}" for one in self._judge(told or {})]

    def disks(self) -> list[tuple[str, dict[str, bytes]]]:
        """Every disk that a loss of power may leave; `kills` has to be called before."""
        return list(disk.states(self._base_as_root(), disk.read_log(self._folder / "log")))

    def power_lost(self, label: str, files: dict[str, bytes]) -> list[str]:
        """Starts a device on a rebuilt disk, returns what is wrong at its end."""
        self._fresh()
        disk.restore(self._root, files)
        told = self._run()
        return [f"{self.name}, power lost after {label}: {one}" for one in self._judge(told or {})]

    def _base_as_root(self) -> Path:
        self._fresh()
        return self._root

    def _fresh(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._base, self._root, ignore=shutil.ignore_patterns("ipc.socket"))

    def _run(self, *options: str) -> dict[str, Any] | None:
        """None when it was killed; raises when it failed otherwise."""
        command = [sys.executable, "-m", "tools.crash.child", str(self._root), self.name, *options]
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
        if done.returncode == -signal.SIGKILL:
            return None
        if done.returncode:
            raise AssertionError(
                f"{' '.join(command[3:])} ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
            )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _judge(self, told: dict[str, Any]) -> list[str]:
        return list(_judge(self.scenario, told))


def _judge(scenario: scenarios.Scenario, told: dict[str, Any]) -> Iterator[str]:
    steps = [*scenario.before, *scenario.steps]
    for number, step in enumerate(steps, 1):
        ended = told["ends"].get(f"d{number}")
        if ended != step.ends:
            yield f"deployment d{number} ended {ended}, expected {step.ends}"
    if told["installed"] != scenario.leaves:
        yield f"installed {told['installed']}, expected {scenario.leaves}"
    if told["speed"] != scenario.speed:
        yield f"the configuration holds speed {told['speed']}, expected {scenario.speed}"
    if told["processes"] != dict.fromkeys(scenario.leaves, 1):
        yield f"processes {told['processes']}, expected one of each of {sorted(scenario.leaves)}"
    if told["broken"]:
        yield f"BROKEN: {told['broken']}"


def run(
    folder: Path, *, seed: int | None = None, kills: int = 0, disks: int = 0, updates: int = 0
) -> tuple[int, list[str]]:
    """All places and disks of all scenarios, or `kills` and `disks` of each, and `updates`, chosen by `seed`.

    Returns how many were tried and what was wrong.
    """
    tried = 0
    wrong: list[str] = []
    for name in scenarios.SCENARIOS:
        found = _all_of(Case(folder, name), seed, kills, disks)
        tried, wrong = tried + found[0], wrong + found[1]
    for good in (True, False):
        found = _all_of(update.UpdateCase(folder, good=good), seed, updates, updates)
        tried, wrong = tried + found[0], wrong + found[1]
    return tried, wrong


def _all_of(case: Case | update.UpdateCase, seed: int | None, kills: int, disks: int) -> tuple[int, list[str]]:
    """Places and disks of one scenario: how many were tried, and what was wrong."""
    places, rebuilt = list(range(1, case.kills() + 1)), case.disks()
    if seed is not None:
        chosen = random.Random(seed)
        places = chosen.sample(places, min(kills, len(places)))
        rebuilt = chosen.sample(rebuilt, min(disks, len(rebuilt)))
    ends = [found for place in places if (found := case.kill_at(place)) is not None]
    killed = len(ends)
    ends += [case.power_lost(label, files) for label, files in rebuilt]
    wrong = [one for end in ends for one in end]
    print(f"{case.name}: {killed} kills, {len(rebuilt)} disks, {len(wrong)} wrong", flush=True)
    return len(ends), wrong
