"""State that a rollback brings back with the old version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.nucleus.actors import device as devices
from tests.nucleus.actors.test_supervisor import FOREVER, A

GOOD = "test -e rows || echo one > rows; echo more >> other; " + FOREVER
SPOILS = "echo spoiled > rows; echo spoiled >> other; exit 1"


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def recipe(version: str, run: str, **marram: Any) -> dict[str, Any]:
    settings = {"DefaultConfiguration": {"marram": marram}} if marram else {}
    return devices.recipe(A, version, {"Run": run}, ComponentConfiguration=settings)


async def test_roll_back_when_state_is_named_then_it_is_as_before_and_the_rest_is_not(device: devices.Device) -> None:
    device.publish(recipe("1.0.0", GOOD), recipe("2.0.0", SPOILS, rollbackState={"paths": ["rows"]}))
    work = device.places.work(A)
    async with device.running():
        assert (await device.deploy({A: "1.0.0"}, watch_s=0.3)).status == "SUCCEEDED"
        result = await device.deploy({A: "2.0.0"}, watch_s=10.0)
        await device.until(A, "RUNNING")

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert (work / "rows").read_text() == "one\n"
    assert "spoiled" in (work / "other").read_text()
    assert "state of" not in result.cause


async def test_roll_back_when_nothing_is_named_then_nothing_is_restored(device: devices.Device) -> None:
    device.publish(recipe("1.0.0", GOOD), recipe("2.0.0", SPOILS))
    async with device.running():
        await device.deploy({A: "1.0.0"}, watch_s=0.3)
        await device.deploy({A: "2.0.0"}, watch_s=10.0)

    assert (device.places.work(A) / "rows").read_text() == "spoiled\n"


async def test_roll_back_when_the_state_is_too_large_then_result_and_log_say_so(device: devices.Device) -> None:
    device.publish(recipe("1.0.0", GOOD), recipe("2.0.0", SPOILS, rollbackState={"paths": ["rows"], "maxBytes": 1}))
    async with device.running():
        await device.deploy({A: "1.0.0"}, watch_s=0.3)
        result = await device.deploy({A: "2.0.0"}, watch_s=10.0)

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert f"the state of {A} was not restored: its files hold more than maxBytes 1" in result.cause
    assert (device.places.work(A) / "rows").read_text() == "spoiled\n"
    assert "component.state_not_kept" in (device.places.logs / "greengrass.log").read_text()


async def test_deploy_when_it_succeeds_then_nothing_is_restored_and_the_next_one_drops_what_was_kept(
    device: devices.Device,
) -> None:
    keeps = {"paths": ["rows"]}
    device.publish(
        recipe("1.0.0", GOOD, rollbackState=keeps),
        recipe("2.0.0", f"echo two > rows; {FOREVER}", rollbackState=keeps),
        recipe("3.0.0", FOREVER, rollbackState=keeps),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"}, watch_s=0.3)
        await device.deploy({A: "2.0.0"}, watch_s=0.3)
        second = {path.parent for path in device.places.deployments.glob(f"*/state/{A}")}
        await device.deploy({A: "3.0.0"})
        third = {path.parent for path in device.places.deployments.glob(f"*/state/{A}")}

    assert (device.places.work(A) / "rows").read_text() == "two\n"
    assert len(second) == len(third) == 1
    assert second != third


async def test_roll_back_when_the_nucleus_restarted_in_between_then_the_state_of_before_is_restored(
    tmp_path: Path,
) -> None:
    spoils = f"echo spoiled > rows; test -e ../../go && exit 1; {FOREVER}"
    first = devices.Device(tmp_path / "root")
    first.publish(recipe("1.0.0", GOOD), recipe("2.0.0", spoils, rollbackState={"paths": ["rows"]}))
    async with first.running():
        await first.deploy({A: "1.0.0"}, watch_s=0.3)
        record = first.submit({A: "2.0.0"}, watch_s=60.0)
        async with asyncio.timeout(20):
            while (first.places.work(A) / "rows").read_text() != "spoiled\n":  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.02)
    first.configuration.close()
    (tmp_path / "root" / "go").touch()

    second = devices.Device(tmp_path / "root")
    async with second.running():
        result = await second.end_of(record.id)
        await second.until(A, "RUNNING")

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert (second.places.work(A) / "rows").read_text() == "one\n"


async def test_regret_when_state_is_named_then_the_window_has_it_restored_too(device: devices.Device) -> None:
    """The way back begins long after success: what was kept aside lies there as long as it may be regretted."""
    later = "echo new > rows; while ! test -e ../../die; do sleep 0.02; done; exit 3"
    device.publish(recipe("1.0.0", GOOD), recipe("2.0.0", later, rollbackState={"paths": ["rows"]}))
    rows = device.places.work(A) / "rows"
    async with device.running():
        await device.deploy({A: "1.0.0"}, watch_s=0.3)
        good = await device.deploy({A: "2.0.0"}, watch_s=0.3)
        assert rows.read_text() == "new\n"
        (device.places.root / "die").touch()
        async with asyncio.timeout(30):
            back = await device.ended.get()
        await device.until(A, "RUNNING")

    assert good.status == "SUCCEEDED"
    assert back.result is not None
    assert back.result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert rows.read_text() == "one\n"
