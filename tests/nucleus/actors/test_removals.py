"""Removals that take longer than a deployment waits for them."""

from __future__ import annotations

from pathlib import Path

from nucleus.core import desired
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 1000"}
STUBBORN = STAYS | {"Uninstall": "touch ../../begun; while ! test -e ../../go; do sleep 0.02; done; touch ../../done"}


async def until_gone(device: devices.Device, name: str) -> None:
    while name in device.supervisor.health():
        await device.supervisor.changed(device.supervisor.revision)


async def test_remove_when_it_takes_too_long_then_the_result_says_so_and_it_leaves_when_it_has_ended(
    tmp_path: Path,
) -> None:
    device = devices.Device(tmp_path / "root", removal_s=0.5)
    root = device.places.root
    device.publish(recipe(A, "1.0.0", STUBBORN), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        result = await device.deploy({B: "1.0.0"})
        still = set(device.supervisor.health())
        kept = device.places.recipe(A, "1.0.0").exists()
        assert not (root / "done").exists()
        (root / "go").touch()
        await until_gone(device, A)
        reported = device.reports.seen[-1]

    assert result.status == "SUCCEEDED"
    assert "com.example.A had not ended 0.5 s after it was told to" in result.note
    assert reported[2]["marram-note"] == result.note
    assert (still, kept) == ({A, B}, True)
    assert (root / "done").exists()
    assert set(desired.installed(device.configuration.tree)) == {B}


async def test_remove_when_deployed_again_meanwhile_then_it_runs_again(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root", removal_s=0.5)
    device.publish(recipe(A, "1.0.0", STUBBORN), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        await device.deploy({B: "1.0.0"})
        record = device.submit({A: "1.0.0", B: "1.0.0"})
        (device.places.root / "go").touch()
        again = await device.end_of(record.id)
        await device.until(A, "RUNNING")

    assert (again.status, again.note) == ("SUCCEEDED", "")
    assert set(desired.installed(device.configuration.tree)) == {A, B}
