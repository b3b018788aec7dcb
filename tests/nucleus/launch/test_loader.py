"""The loader with an interpreter that ends with codes we choose; and its repairs, from every state a crash can leave."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from nucleus.host import launch
from tools import system as systems

LOADER_S = 30


class Root:
    """A root with launch directories whose `python` is a script of ours; each run appends its directory to `runs`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.alts = path / "alts"
        self.alts.mkdir(parents=True)
        (path / "bin").mkdir()
        self.loader = path / "bin" / "loader"
        self.loader.write_bytes(launch.loader_text())
        self.loader.chmod(0o755)

    def directory(self, name: str, script: str) -> None:
        folder = self.alts / name
        folder.mkdir()
        program = folder / "program"
        program.write_text(f'#!/bin/sh\necho {name} >>"{self.path}/runs"\n{script}\n')
        program.chmod(0o755)
        (folder / "python").write_text("program\n")

    def link(self, **links: str) -> None:
        for link, name in links.items():
            (self.alts / link).symlink_to(name)

    def links(self) -> dict[str, str]:
        return {one: (self.alts / one).readlink().name for one in launch.LINKS if (self.alts / one).is_symlink()}

    def run(self) -> int:
        return subprocess.run([self.loader], timeout=LOADER_S, capture_output=True, check=False).returncode

    def runs(self) -> list[str]:
        path = self.path / "runs"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "device root")  # a blank in the path, too


def counted(root: Root, *codes: int) -> str:
    """A script that ends with these codes, one after the other, the last one for ever."""
    cases = "".join(f"{number}) exit {code};;" for number, code in enumerate(codes, 1))
    return f'case $(wc -l <"{root.path}/runs") in {cases} *) exit {codes[-1]};; esac'


def test_loader_when_the_nucleus_wants_a_restart_then_it_is_started_again(root: Root) -> None:
    root.directory("init", counted(root, 100, 100, 7))
    root.link(current="init")

    assert root.run() == 7
    assert root.runs() == ["init"] * 5  # two restarts, then three failures


def test_loader_when_one_failure_only_then_it_goes_on(root: Root) -> None:
    root.directory("init", counted(root, 3, 3, 100, 3, 3, 3))
    root.link(current="init")

    assert root.run() == 3
    assert len(root.runs()) == 6


def test_loader_when_a_reboot_is_asked_for_then_the_command_runs_and_it_ends(root: Root) -> None:
    root.directory("init", "exit 101")
    root.link(current="init")
    launch.Launches(root.path, under_loader=True).set_reboot_command(f'echo down > "{root.path}/rebooted"')

    assert root.run() == 0
    assert (root.path / "rebooted").read_text() == "down\n"
    assert root.runs() == ["init"]


def test_loader_when_the_reboot_command_fails_then_the_nucleus_comes_back(root: Root) -> None:
    root.directory("init", counted(root, 101, 9))
    root.link(current="init")
    launch.Launches(root.path, under_loader=True).set_reboot_command("false")

    assert root.run() == 9
    assert len(root.runs()) == 4


def test_loader_when_the_new_one_fails_three_times_then_the_old_one_runs_with_a_note(root: Root) -> None:
    root.directory("old1", "exit 101")
    root.directory("new1", 'echo "ImportError: no module" >&2; exit 4')
    root.link(current="new1", old="old1")
    launch.Launches(root.path, under_loader=True).set_reboot_command("true")

    assert root.run() == 0
    assert root.runs() == ["new1", "new1", "new1", "old1"]
    assert root.links() == {"current": "old1", "broken": "new1"}
    note = launch.Launches(root.path, under_loader=True).panic()
    assert "exit code 4" in note
    assert "ImportError: no module" in note


def test_loader_when_told_to_end_then_it_hands_the_signal_on_and_returns_0(root: Root) -> None:
    root.directory(
        "init", f'trap \'touch "{root.path}/told"; exit 0\' TERM; touch "{root.path}/up"; while :; do sleep 0.05; done'
    )
    root.link(current="init")
    process = subprocess.Popen([root.loader])
    try:
        systems.wait_for((root.path / "up").exists, "the nucleus to run", LOADER_S)
        other = root.run()
        process.send_signal(signal.SIGTERM)

        assert process.wait(LOADER_S) == 0
    finally:
        process.kill()
    assert other == 1  # two loaders would fight for the links
    assert (root.path / "told").exists()
    assert root.runs() == ["init"]


@pytest.mark.parametrize(
    ("links", "runs", "after"),
    [
        ({"current": "a", "new": "b"}, "b", {"current": "b", "old": "a"}),
        ({"current": "a", "old": "a", "new": "b"}, "b", {"current": "b", "old": "a"}),
        ({"current": "b", "old": "a", "new": "b"}, "b", {"current": "b", "old": "a"}),
        ({"old": "a", "new": "b"}, "b", {"current": "b", "old": "a"}),
        ({"current": "b", "old": "a", "broken": "b"}, "a", {"current": "a", "broken": "b"}),
        ({"old": "a", "broken": "b"}, "a", {"current": "a", "broken": "b"}),
        ({"old": "a"}, "a", {"current": "a"}),
        ({"current": "gone", "old": "a"}, "a", {"current": "a"}),
        ({"current": "a", "new": "gone"}, "a", {"current": "a"}),
        ({"current": "gone"}, "init", {"current": "init"}),
        ({}, "init", {"current": "init"}),
        ({"current": "a", "broken": "b"}, "a", {"current": "a", "broken": "b"}),
    ],
)
def test_loader_when_a_crash_left_links_then_it_repairs_them(
    root: Root, links: dict[str, str], runs: str, after: dict[str, str]
) -> None:
    """aws-greengrass-nucleus issue 1342: the link is gone after a shutdown, the agent cannot start."""
    for name in ("init", "a", "b"):
        root.directory(name, "exit 101")
    root.link(**links)
    launch.Launches(root.path, under_loader=True).set_reboot_command("true")

    assert root.run() == 0
    assert root.runs() == [runs]
    assert root.links() == after
