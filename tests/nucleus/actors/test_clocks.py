"""Wrong clocks: at 1970, ten years ahead, and set back in the middle of a deployment. Nothing waits for years."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nucleus.core import builtin, configuration, desired, document, local
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
SPEED = (desired.SERVICES, A, "configuration", "speed")
YEAR_S = 365 * 86_400.0
STAYS = {"Run": "exec sleep 1000"}
DIES_LATER = {"Run": "while ! test -e ../../die; do sleep 0.02; done; exit 3"}
WITH_SPEED = {"ComponentConfiguration": {"DefaultConfiguration": {"speed": 1}}}
CLOCKS: dict[str, Callable[[], float]] = {
    "1970": lambda: 0.0,
    "right": time.time,
    "ten years ahead": lambda: time.time() + 10 * YEAR_S,
}


class Clock:
    """Gives what the test last said; `cloud_ms` is the true time."""

    def __init__(self, name: str) -> None:
        self.read = CLOCKS[name]

    def __call__(self) -> float:
        return self.read()

    def set(self, name: str) -> None:
        self.read = CLOCKS[name]


def cloud_ms() -> int:
    return time.time_ns() // 1_000_000


def a_device(root: Path, clock: Clock) -> devices.Device:
    device = devices.Device(root, configuration=configuration_store.ConfigurationStore(root / "config", clock))
    device.publish(recipe(A, "1.0.0", STAYS, **WITH_SPEED), recipe(A, "2.0.0", DIES_LATER, **WITH_SPEED))
    device.publish(recipe(B, "1.0.0", STAYS))
    return device


def write(device: devices.Device, speed: int) -> None:
    """As the component does over the IPC: now."""
    store = device.configuration
    store.commit((configuration.Change(SPEED, speed, store.now(), f"component:{A}"),))


def wish(speed: int) -> dict[str, document.Wish]:
    return {A: document.Wish(version="1.0.0", merge={"speed": speed})}


@pytest.mark.parametrize(
    ("name", "source"), [("1970", None), ("right", None), ("ten years ahead", desired.PROCESSING_TIME)]
)
async def test_deploy_when_the_clock_is_wrong_all_the_time_then_the_last_writer_wins(
    tmp_path: Path, name: str, source: str | None
) -> None:
    """Always ahead looks like a cloud whose documents are ten years old: there the setting is what helps."""
    device = a_device(tmp_path / "root", Clock(name))
    if source is not None:
        store = device.configuration
        path = (desired.SERVICES, builtin.NUCLEUS, "configuration", "deploymentConfigurationTimeSource")
        store.commit((configuration.Change(path, source, store.now(), "file"),))
    seen = []
    async with device.running():
        for speed in (2, 4):
            result = await device.deploy(wish(speed), created_ms=cloud_ms())
            seen.append((result.status, configuration.get(device.configuration.tree, SPEED)))
            write(device, speed + 1)
            seen.append(("written", configuration.get(device.configuration.tree, SPEED)))

    assert seen == [("SUCCEEDED", 2), ("written", 3), ("SUCCEEDED", 4), ("written", 5)]


@pytest.mark.parametrize(
    ("before", "after"), [(a, b) for a in CLOCKS for b in CLOCKS if (a, b) != ("ten years ahead", "ten years ahead")]
)
async def test_deploy_when_the_clock_is_set_meanwhile_then_the_new_revision_still_wins_over_the_component(
    tmp_path: Path, before: str, after: str
) -> None:
    clock = Clock(before)
    device = a_device(tmp_path / "root", clock)
    async with device.running():
        await device.deploy(wish(2), created_ms=cloud_ms())
        write(device, 3)
        clock.set(after)
        result = await device.deploy(wish(4), created_ms=cloud_ms())
        assert (result.status, configuration.get(device.configuration.tree, SPEED)) == ("SUCCEEDED", 4)
        write(device, 5)
        assert configuration.get(device.configuration.tree, SPEED) == 5
    again = a_device(tmp_path / "root", clock)

    assert configuration.get(again.configuration.tree, SPEED) == 5


@pytest.mark.parametrize("after", CLOCKS)
async def test_deploy_when_the_clock_jumps_in_its_watch_window_then_decided_by_what_happens(
    tmp_path: Path, after: str
) -> None:
    clock = Clock("right")
    device = a_device(tmp_path / "root", clock)
    async with device.running():
        await device.deploy(wish(2), created_ms=cloud_ms())
        record = device.submit({A: document.Wish(version="2.0.0")}, created_ms=cloud_ms(), watch_s=60.0)
        await device.reports.until_waiting("watch")
        clock.set(after)
        (device.places.root / "die").touch()
        result = await device.end_of(record.id)
        await device.until(A, "RUNNING")

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert desired.installed(device.configuration.tree)[A].version == "1.0.0"
    assert configuration.get(device.configuration.tree, SPEED) == 2


async def test_deadline_when_the_clock_stands_still_then_it_passes_all_the_same(tmp_path: Path) -> None:
    device = a_device(tmp_path / "root", Clock("1970"))
    device.publish(recipe(A, "3.0.0", {"Startup": {"Script": "exec sleep 1000", "Timeout": 1000}}))
    async with device.running():
        result = await device.deploy({A: "3.0.0"}, created_ms=cloud_ms(), deadline_s=0.5)

    assert result.status == "FAILED"


@pytest.mark.parametrize("name", ["1970", "ten years ahead"])
async def test_cloud_revision_when_a_local_deployment_of_the_group_was_made_by_a_wrong_clock_then_not_stale(
    tmp_path: Path, name: str
) -> None:
    device = a_device(tmp_path / "root", Clock(name))
    old_ms = cloud_ms()
    async with device.running():
        await device.deploy(wish(2), created_ms=old_ms)
        asked = local.LocalRequest(
            group=devices.GROUP.removeprefix("thinggroup/"),
            add={B: "1.0.0"},
            recipe_directory=str(device.places.root / "published"),
        )
        made = await device.end_of(await device.deployer.create_local(asked, "test"))
        newer = await device.deploy(wish(3), created_ms=old_ms + 1)
        older = await device.deploy(wish(4), created_ms=old_ms)

    assert made.status == "SUCCEEDED", made.cause
    assert newer.status == "SUCCEEDED"
    assert older.stack[-1] == "REJECTED_STALE_DEPLOYMENT"


@pytest.mark.parametrize("after", CLOCKS)
async def test_regret_when_the_clock_jumps_after_success_then_the_time_is_as_long_as_meant(
    tmp_path: Path, after: str
) -> None:
    clock = Clock("right")
    device = a_device(tmp_path / "root", clock)
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.deploy({A: "2.0.0"})
        await device.deploy({A: "9.0.0"})  # refused: the watch is begun again after it
        clock.set(after)
        await device.deploy({A: "9.0.0"})
        (device.places.root / "die").touch()
        async with asyncio.timeout(30):
            back = await device.ended.get()

    assert back.result is not None
    assert back.result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "became BROKEN" in back.result.cause


async def test_restart_when_what_waits_bears_an_earlier_time_then_what_had_begun_goes_first(tmp_path: Path) -> None:
    clock = Clock("1970")
    device = a_device(tmp_path / "root", clock)
    device.publish(recipe(A, "3.0.0", {"Startup": {"Script": "while ! test -e ../../go; do sleep 0.02; done"}}))
    async with device.running():
        first = device.submit({A: "3.0.0"}, created_ms=cloud_ms())
        first.queued_ms = cloud_ms()  # by the service's clock
        device.places.deployments.mkdir(exist_ok=True)
        await device.until(A, "STARTING")
        second = await device.deployer.create_local(local.LocalRequest(add={B: "1.0.0"}), "test")
    clock.set("ten years ahead")
    (device.places.root / "go").touch()
    again = a_device(tmp_path / "root", clock)
    ends: list[deployments.Record] = []
    async with again.running(), asyncio.timeout(30):
        while len(ends) < 2:
            ends.append(await again.ended.get())

    assert [one.id for one in ends] == [first.id, second]
    assert [one.result.status for one in ends if one.result is not None] == ["SUCCEEDED", "SUCCEEDED"]


async def test_records_when_loaded_then_in_the_order_of_their_acceptance(tmp_path: Path) -> None:
    device = a_device(tmp_path / "root", Clock("1970"))
    store = deployments.DeploymentStore(device.places)
    for number, queued_ms in ((1, cloud_ms()), (2, 5), (3, cloud_ms() * 2)):
        found = document.Document(deployment_id=f"d{number}", configuration_arn="x", group="g", created_ms=queued_ms)
        store.save(deployments.Record(document=found, source=deployments.LOCAL, number=number, queued_ms=queued_ms))

    assert [one.id for one in store.load()[0]] == ["d1", "d2", "d3"]
