"""A deployment that kills the nucleus before its commit: tried again, given up, never for what was only asked to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.core import document
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

GOOD = "com.example.Good"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def accepted(root: Path) -> deployments.Record:
    """Accepted by a nucleus that dies before it can do more; queued behind nothing, so it has begun."""
    device = devices.Device(root)
    device.publish(recipe(GOOD, "1.0.0", {"Run": "exec sleep 1000"}))
    return device.submit({GOOD: "1.0.0"})


def launches(root: Path, count: int, *, orderly: bool = False) -> None:
    for _ in range(count):
        device = devices.Device(root)
        if orderly:
            deployments.DeploymentStore(device.places).mark_orderly()
        device.deployer.restore()


async def test_preparation_when_the_nucleus_died_in_it_three_times_then_failed_and_nothing_changed(root: Path) -> None:
    accepted(root)
    launches(root, 2)
    last = devices.Device(root)
    async with last.running():
        last.deployer.wake_reports()
        await last.reports.until("FAILED")
        _, _, details = last.reports.seen[-1]
        fine = await last.deploy({GOOD: "1.0.0"})

    assert details["detailed-deployment-status"] == "FAILED_NO_STATE_CHANGE"
    assert "NUCLEUS_RESTART_FAILURE" in details["deployment-error-stack"]
    assert "died 3 times in the preparation" in details["deployment-failure-cause"]
    assert fine.status == "SUCCEEDED"


async def test_preparation_when_it_died_twice_then_carried_out(root: Path) -> None:
    record = accepted(root)
    launches(root, 1)
    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(record.id)

    assert result.status == "SUCCEEDED"


async def test_preparation_when_every_end_was_orderly_then_carried_out(root: Path) -> None:
    record = accepted(root)
    launches(root, 5, orderly=True)
    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(record.id)

    assert result.status == "SUCCEEDED"


async def test_queued_when_another_kills_the_nucleus_then_only_that_one_fails(root: Path) -> None:
    accepted(root)
    second = devices.Device(root)
    second.deployer.restore()
    behind = second.submit({GOOD: "1.0.0"})
    launches(root, 1)
    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(behind.id)

    assert result.status == "SUCCEEDED"
    assert not behind.stage


async def test_failure_when_a_bootstrap_step_set_it_then_it_keeps_its_code(root: Path) -> None:
    device = devices.Device(root)
    record = accepted(root)
    record.failure = deployments.Failure(("COMPONENT_BOOTSTRAP_ERROR",), "it broke")
    records = deployments.DeploymentStore(device.places)
    records.save(record)
    launches(root, 3)

    (found,), _ = records.load()
    assert found.result is None
    assert found.failure == record.failure
    assert found.document.failure_policy == document.ROLLBACK
