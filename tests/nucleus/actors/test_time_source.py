"""`deploymentConfigurationTimeSource`: whose moment a deployment's values bear, and so who wins against a component."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.core import builtin, configuration, desired, document
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A = "com.example.A"


@pytest.mark.parametrize(
    ("source", "winner"), [("deploymentCreationTime", 7), ("deploymentProcessingTime", 9), (None, 7)]
)
async def test_deploy_when_a_component_wrote_since_its_creation_then_the_setting_decides_who_wins(
    tmp_path: Path, source: str | None, winner: int
) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(recipe(A, "1.0.0", {"Run": "exit 0"}, ComponentConfiguration={"DefaultConfiguration": {"speed": 1}}))
    store = device.configuration
    if source is not None:
        path = ("services", builtin.NUCLEUS, "configuration", "deploymentConfigurationTimeSource")
        store.commit((configuration.Change(path, source, store.now(), "file"),))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        created_ms = store.now()
        speed = (desired.SERVICES, A, "configuration", "speed")
        store.commit((configuration.Change(speed, 7, created_ms + 5, f"component:{A}"),))
        wish = document.Wish(version="1.0.0", merge={"speed": 9})
        result = await device.deploy({A: wish}, created_ms=created_ms)

    assert result.status == "SUCCEEDED"
    assert configuration.get(store.tree, speed) == winner
