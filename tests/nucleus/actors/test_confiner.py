"""Limits and pauses of real components where no control groups can be written; where they can: tests/conformance."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from nucleus.core import run_as
from nucleus.core.component import RunWith
from nucleus.core.lifecycle import Effect, State
from nucleus.host import confine
from tests.nucleus.actors.test_supervisor import FOREVER, A, Bench, one


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Its system has no control groups at all."""
    return Bench(tmp_path / "root", cgroup_root=tmp_path / "cgroup")


async def test_limits_when_there_are_no_control_groups_then_it_runs_and_one_warning_says_why(bench: Bench) -> None:
    record = structs.replace(one(A, {"run": FOREVER}), run_with=RunWith(memory_kb=1000))
    async with bench.running() as running:
        running.adopt(record, Effect.START)
        await bench.settled(A, State.RUNNING)
        running.set_defaults(run_as.Defaults(posix_user="0", cpus=0.5))
        running.adopt(record, Effect.KEEP)
        await bench.until(A, lambda health: health.generation == 2)

    assert bench.log().count("component.not_limited") == 1
    assert "no control group controller memory" in bench.log()


async def test_pause_when_it_cannot_be_then_it_runs_on_and_the_reason_is_told(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        await bench.settled(A, State.RUNNING)
        with pytest.raises(confine.Unavailable, match="no control group controller freezer"):
            await running.pause(A)
        running.stop_component(A)
        await bench.settled(A, State.FINISHED)
        with pytest.raises(confine.Unavailable, match="only a RUNNING component"):
            await running.pause(A)
        await running.resume(A)
