"""After success: a changed component that becomes BROKEN within the time leads back, as a deployment of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nucleus.core import bootstrap, configuration, desired, document
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 1000"}
DIES_LATER = {"Run": "while ! test -e ../../die; do sleep 0.02; done; exit 3"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    made = devices.Device(tmp_path / "root")
    made.publish(
        recipe(A, "1.0.0", STAYS, ComponentConfiguration={"DefaultConfiguration": {"speed": 1}}),
        recipe(A, "2.0.0", DIES_LATER, ComponentConfiguration={"DefaultConfiguration": {"extra": True}}),
        recipe(B, "1.0.0", STAYS),
    )
    return made


def installed(device: devices.Device) -> dict[str, str]:
    return {name: one.version for name, one in desired.installed(device.configuration.tree).items()}


async def next_end(device: devices.Device) -> deployments.Record:
    async with asyncio.timeout(30):
        return await device.ended.get()


async def test_regret_when_a_changed_component_breaks_in_time_then_everything_of_before_returns(
    device: devices.Device,
) -> None:
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        before = device.configuration.tree
        record = device.submit({A: document.Wish(version="2.0.0", merge={"speed": 9})})
        good = await device.end_of(record.id)
        assert installed(device) == {A: "2.0.0"}
        (device.places.root / "die").touch()
        back = await next_end(device)
        await device.until(A, "RUNNING")
        await device.until(B, "RUNNING")
        told = {one.deployment_id: one for one in device.deployer.list()}

    assert good.status == "SUCCEEDED"
    assert back.result is not None
    assert (back.source, back.regrets, back.caller) == ("local", record.id, "nucleus")
    assert (back.result.status, back.result.detailed) == ("FAILED", "FAILED_ROLLBACK_COMPLETE")
    assert f"{A} became BROKEN" in back.result.cause
    assert back.result.stack == ("DEPLOYMENT_FAILURE", "COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN")
    assert told[back.id].status == "FAILED"
    assert installed(device) == {A: "1.0.0", B: "1.0.0"}
    for name in (A, B):
        path = ("services", name, "configuration")
        assert configuration.plain(configuration.subtree(device.configuration.tree, path)) == configuration.plain(
            configuration.subtree(before, path)
        )
    assert desired.roots(device.configuration.tree) == desired.roots(before)


async def test_regret_when_the_nucleus_restarts_in_between_then_it_still_works(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", DIES_LATER))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.deploy({A: "2.0.0"})
    again = devices.Device(tmp_path / "root")
    async with again.running():
        await again.until(A, "RUNNING")
        (again.places.root / "die").touch()
        back = await next_end(again)

    assert back.result is not None
    assert back.result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert installed(again) == {A: "1.0.0"}


@pytest.mark.parametrize("more", [{"regret_s": 0.0}, {"failure_policy": document.DO_NOTHING}])
async def test_regret_when_switched_off_then_the_broken_component_stays(
    device: devices.Device, more: dict[str, object]
) -> None:
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.deploy({A: "2.0.0"}, **more)
        (device.places.root / "die").touch()
        await device.until(A, "BROKEN")
        result = await device.deploy({A: "2.0.0", B: "1.0.0"}, **more, update_action=document.SKIP, deadline_s=5.0)

        assert result.status in ("SUCCEEDED", "FAILED")  # the next thing that happens is what was asked for
    assert installed(device)[A] == "2.0.0"


async def test_regret_when_the_time_is_over_then_nothing_leads_back_any_more(device: devices.Device) -> None:
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.deploy({A: "2.0.0"}, regret_s=0.001)
        (device.places.root / "die").touch()
        await device.until(A, "BROKEN")

    assert device.ended.empty()
    assert installed(device) == {A: "2.0.0"}


def launch_directories(root: Path, **links: str) -> Path:
    """Two finished ones, `init` and `d2`, and links to them."""
    alts = root / "alts"
    for name in ("init", "d2"):
        (alts / name).mkdir(parents=True)
        (alts / name / "python").write_text("/usr/bin/python3\n")
    for link, target in links.items():
        (alts / link).symlink_to(target)
    return alts


async def updated(device: devices.Device, *, old: str = "") -> deployments.Record:
    """A deployment that has succeeded and brought the nucleus from 0.8.0 to 0.9.0 as well."""
    await device.deploy({A: "1.0.0"})
    record = device.submit({A: "2.0.0"}, watch_s=0.5)
    await device.reports.until_waiting("watch")
    record.bootstrap = bootstrap.Facts(own=bootstrap.OwnUpdate("0.8.0", "0.9.0", "d2"))
    if old:
        (device.places.root / "alts" / "old").symlink_to(old)
    assert (await device.end_of(record.id)).status == "SUCCEEDED"
    return record


async def test_regret_when_the_deployment_brought_another_nucleus_then_the_old_one_is_started_and_ends_the_way_back(
    tmp_path: Path,
) -> None:
    device = devices.Device(tmp_path / "root", version="0.9.0")
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", DIES_LATER))
    alts = launch_directories(device.places.root, current="d2")
    async with device.running():
        await updated(device, old="init")
        (device.places.root / "die").touch()
        async with asyncio.timeout(30):
            code = await device.left.get()
    assert (code, (alts / "current").readlink()) == (100, Path("init"))

    again = devices.Device(tmp_path / "root", version="0.8.0")
    async with again.running():
        back = await next_end(again)

    assert back.result is not None
    assert back.result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "became BROKEN" in back.result.cause
    assert installed(again) == {A: "1.0.0"}


async def test_regret_when_the_old_nucleus_is_not_there_any_more_then_the_rest_goes_back_and_it_says_so(
    tmp_path: Path,
) -> None:
    device = devices.Device(tmp_path / "root", version="0.9.0")
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", DIES_LATER))
    launch_directories(device.places.root, current="d2")
    async with device.running():
        record = await updated(device)
        (device.places.root / "die").touch()
        back = await next_end(device)
    assert back.regrets == record.id

    assert back.result is not None
    assert "the nucleus stays at version 0.9.0, because 0.8.0 is not in a launch directory" in back.result.cause
    assert installed(device) == {A: "1.0.0"}
