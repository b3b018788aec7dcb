"""No boot loops: a component that takes the nucleus down at every launch, until SAFE_MODE and out of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.core import safe_mode
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

GOOD, BAD = "com.example.Good", "com.example.Bad"
STAYS = {"Run": "exec sleep 1000"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


async def test_launches_when_the_way_back_loops_too_then_safe_mode_then_nothing_then_a_deployment_ends_it(
    root: Path,
) -> None:
    device = devices.Device(root)
    lasting = {"Startup": "sleep 1000"}
    device.publish(recipe(GOOD, "1.0.0", STAYS), recipe(BAD, "1.0.0", lasting), recipe(BAD, "2.0.0", STAYS))
    async with device.running():
        await device.deploy({GOOD: "1.0.0"})
        await device.deploy({GOOD: "1.0.0", BAD: "2.0.0"})
        device.submit({GOOD: "1.0.0", BAD: "1.0.0"})
        await device.until(BAD, "STARTING")
    launch = devices.Device(root)
    for _ in range(2):
        launch = devices.Device(root)
        launch.deployer.restore()
    assert not safe_mode.why(launch.configuration.tree)

    ways_back = [devices.Device(root).deployer.restore() for _ in range(4)]  # 1 plans back, 3 find that undecided
    told = devices.Device(root)
    launches = [devices.Device(root).deployer.restore() for _ in range(3)]

    assert "SAFE_MODE" in safe_mode.why(told.configuration.tree)
    assert ways_back[-1] == {GOOD, BAD}  # the last good set
    assert launches[-1] == frozenset()
    last = devices.Device(root)
    async with last.running():
        assert last.supervisor.health() == {}
        result = await last.deploy({GOOD: "1.0.0"})
        await last.until(GOOD, "RUNNING")
    assert result.status == "SUCCEEDED"
    assert not safe_mode.why(last.configuration.tree)
