"""Control groups: a tree of ordinary files that looks like the kernel's, and the real one where it may be written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.core import run_as
from nucleus.host import confine

C = "com.example.C"


def put(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.fixture
def two(tmp_path: Path) -> confine.Groups:
    control = {"cgroup.procs": "", "cgroup.subtree_control": ""}
    put(tmp_path, control | {"cgroup.controllers": "cpu io memory pids"})
    put(tmp_path / "p", control)
    leaf = {
        "memory.max": "max",
        "cpu.max": "max 200000",
        "cgroup.freeze": "0",
        "cgroup.events": "populated 1\nfrozen 1\n",
    }
    put(tmp_path / "p" / C, control | leaf)
    return confine.Groups("p", tmp_path)


@pytest.fixture
def first(tmp_path: Path) -> confine.Groups:
    leaves = {
        "memory": {"memory.limit_in_bytes": "-1"},
        "cpu": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"},
        "freezer": {"freezer.state": "THAWED"},
    }
    for name, files in leaves.items():
        put(tmp_path / name, {"cgroup.procs": ""})
        put(tmp_path / name / "p" / C, files | {"cgroup.procs": ""})
    return confine.Groups("p", tmp_path)


def test_limit_when_version_2_then_bytes_and_quota_of_the_period_found(two: confine.Groups, tmp_path: Path) -> None:
    two.limit(C, run_as.Limits(memory_kb=1000, cpus=0.25))

    assert (tmp_path / "p" / C / "memory.max").read_text() == "1024000"
    assert (tmp_path / "p" / C / "cpu.max").read_text().startswith("50000 200000")


def test_limit_when_version_1_then_each_controller_has_its_own_group(first: confine.Groups, tmp_path: Path) -> None:
    first.limit(C, run_as.Limits(memory_kb=1000, cpus=1.5))
    first.add(C, [123])

    assert (tmp_path / "memory" / "p" / C / "memory.limit_in_bytes").read_text() == "1024000"
    assert (tmp_path / "cpu" / "p" / C / "cpu.cfs_quota_us").read_text() == "75000"
    assert [(tmp_path / name / "p" / C / "cgroup.procs").read_text() for name in ("memory", "cpu")] == ["123", "123"]


def test_limit_when_lifted_then_none(first: confine.Groups, tmp_path: Path) -> None:
    first.limit(C, run_as.Limits())

    assert (tmp_path / "memory" / "p" / C / "memory.limit_in_bytes").read_text() == "-1"
    assert (tmp_path / "cpu" / "p" / C / "cpu.cfs_quota_us").read_text() == "-1"


def test_freeze_when_either_version_then_its_own_word(
    first: confine.Groups, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    first.freeze(C)

    assert (tmp_path / "freezer" / "p" / C / "freezer.state").read_text() == "FROZEN"
    assert first.is_frozen(C)
    first.thaw_all()
    assert (tmp_path / "freezer" / "p" / C / "freezer.state").read_text() == "THAWED"
    assert not first.is_frozen(C)


def test_freeze_when_version_2_then_it_is_frozen_once_the_events_say_so(two: confine.Groups, tmp_path: Path) -> None:
    two.freeze(C)

    assert (tmp_path / "p" / C / "cgroup.freeze").read_text() == "1"
    assert two.is_frozen(C)


def test_limit_when_a_folder_can_be_made_but_no_controller_is_there_then_unavailable(tmp_path: Path) -> None:
    put(tmp_path / "memory", {"cgroup.procs": ""})
    groups = confine.Groups("p", tmp_path)

    with pytest.raises(confine.Unavailable, match="have no controller memory"):
        groups.limit(C, run_as.Limits(memory_kb=1))
    with pytest.raises(confine.Unavailable, match="no control group controller cpu"):
        groups.limit(C, run_as.Limits(cpus=1))


def test_limit_when_nothing_is_asked_for_then_nothing_is_made(tmp_path: Path) -> None:
    confine.Groups("p", tmp_path).limit(C, run_as.Limits())
    confine.Groups("p", tmp_path).thaw(C)
    confine.Groups("p", tmp_path).thaw_all()

    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def real() -> Iterator[confine.Groups]:
    """Groups in the kernel's own tree; skipped where it may not be written."""
    parent = f"marram-test-{secrets.token_hex(4)}"
    groups = confine.Groups(parent)
    try:
        groups.freeze(C)
        groups.thaw(C)
    except confine.Unavailable as error:
        pytest.skip(f"no control groups for tests here: {error}")
    yield groups
    groups.thaw_all()
    groups.remove(C)
    for folder in (confine.ROOT / parent, *(confine.ROOT / name / parent for name in ("memory", "cpu", "freezer"))):
        with contextlib.suppress(OSError):
            folder.rmdir()


async def test_freeze_when_real_then_the_process_stands_still_until_thawed(real: confine.Groups) -> None:
    counts = subprocess.Popen(["sh", "-c", "while echo; do :; done"], stdout=subprocess.PIPE)
    assert counts.stdout is not None
    try:
        real.add(C, [counts.pid])
        real.freeze(C)
        async with asyncio.timeout(10):
            while not real.is_frozen(C):  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.01)
        os.set_blocking(counts.stdout.fileno(), False)
        while counts.stdout.read(1 << 20):
            pass
        assert not counts.stdout.read(1)

        real.thaw(C)
        os.set_blocking(counts.stdout.fileno(), True)
        assert counts.stdout.read(1) == b"\n"
    finally:
        real.thaw(C)
        counts.kill()
        counts.wait()
        counts.stdout.close()


def test_limit_when_real_then_the_kernel_has_it(real: confine.Groups) -> None:
    try:
        real.limit(C, run_as.Limits(memory_kb=100_000, cpus=0.5))
    except confine.Unavailable as error:
        pytest.skip(f"no such controllers here: {error}")

    assert real.has(C)
