"""Part A, D, G and H: cancellation, leaks, reconnects, local deployments."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nucleus.core import document, local
from nucleus.ipc import client, connection
from tests.nucleus import fakes_ipc
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe
from tools import system as systems

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 100000"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


@pytest.fixture
def system() -> Iterator[systems.System]:
    with tempfile.TemporaryDirectory(prefix="mf") as folder:
        one = systems.System(Path(folder))
        try:
            one.start_cloud()
            yield one
        finally:
            one.close()


async def test_nucleus_issue_798_when_cancelled_while_applying_then_it_ends_and_the_old_state_is_back(
    device: devices.Device,
) -> None:
    """Cancel is ignored in stages where it should be safe."""
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Startup": "sleep 1000"}))
    async with device.running():
        assert (await device.deploy({A: "1.0.0"}, group=document.LOCAL_GROUP)).status == "SUCCEEDED"
        device.store.take_local(device.places.root / "published", None)
        stuck = await device.deployer.create_local(local.LocalRequest(add={A: "2.0.0"}), "cli")
        await device.until(A, "STARTING")

        assert device.deployer.cancel_local(stuck)
        ended = await device.end_of(stuck)
        await device.until(A, "RUNNING")

        assert ended.status == "CANCELED"
        assert device.supervisor.health()[A].version == "1.0.0"


async def test_nomad_issue_10465_when_a_dependency_never_comes_then_the_deadline_ends_it(
    device: devices.Device,
) -> None:
    """A canary with an unrecoverable error stalls past every deadline."""
    needs = {"ComponentDependencies": {B: {"VersionRequirement": "*", "DependencyType": "HARD"}}}
    device.publish(recipe(A, "1.0.0", STAYS, **needs), recipe(B, "1.0.0", {"Startup": "sleep 1000"}))
    async with device.running():
        result = await device.deploy({A: "1.0.0", B: "1.0.0"}, deadline_s=0.5)

    assert result.status == "FAILED"
    assert f"hard dependency {B}" in result.cause


async def test_nucleus_issue_1036_when_the_artifact_lies_beside_the_recipe_then_nothing_is_downloaded(
    device: devices.Device, tmp_path: Path
) -> None:
    """A local deployment downloads S3 artifacts although they lie beside the recipe. (This device has no way out.)"""
    files = tmp_path / "artifacts" / A / "1.0.0"
    files.mkdir(parents=True)
    (files / "word.txt").write_text("beside")
    (tmp_path / "recipes").mkdir()
    text = recipe(A, "1.0.0", {"Run": "cat {artifacts:path}/word.txt > seen"})
    text["Manifests"][0]["Artifacts"] = [{"URI": "s3://bucket/word.txt"}]
    (tmp_path / "recipes" / "a.json").write_text(json.dumps(text))
    request = local.LocalRequest(
        add={A: "1.0.0"}, recipe_directory=str(tmp_path / "recipes"), artifacts_directory=str(tmp_path / "artifacts")
    )
    async with device.running():
        ended = await device.end_of(await device.deployer.create_local(request, "cli"))

    assert ended.status == "SUCCEEDED"
    assert (device.places.work(A) / "seen").read_text() == "beside"


def test_nucleus_issue_1650_when_subscribed_and_unsubscribed_often_then_nothing_is_left(tmp_path: Path) -> None:
    """Subscribe/unsubscribe leaks until the heap ends (also aws-iot-device-sdk-python-v2 issue 589)."""
    world = fakes_ipc.World(tmp_path / "s", connection.Limits())
    token = world.add(A, access=fakes_ipc.EVERYTHING)
    with fakes_ipc.serving_in_thread(world):
        ipc = client.Client(socket_path=str(tmp_path / "s"), token=token)
        for number in range(1500):
            ipc.subscribe("SubscribeToTopic", {"topic": f"t/{number}"}).close()
            ipc.subscribe("SubscribeToConfigurationUpdate", {"componentName": A, "keyPath": []}).close()
        ipc.call("GetConfiguration", {"keyPath": []})  # the server has seen every close before this
        watchers, listeners = world.watchers, world.broker.publish("t/7", b"x", B)
        ipc.close()

    assert listeners == 0
    assert watchers <= 1  # the server's own, for policies


def test_kubeedge_issue_3941_when_the_connection_comes_back_then_healthy_components_are_left_alone(
    system: systems.System,
) -> None:
    """A reconnect kills healthy workloads and makes new ones."""
    target = system.create_group("g")
    root = system.create_device("d", "g")
    system.start_nucleus("d")
    system.publish(recipe(A, "1.0.0", STAYS))
    system.wait("d", system.deploy(target, {A: "1.0.0"}, tags={"marram:watch_s": "0"}))
    log = root / "logs" / "greengrass.log"
    before = log.read_text()

    for child in psutil.Process(system.processes["cloud"].pid).children(recursive=True):
        child.kill()
    connections = before.count("mqtt.connected")
    systems.wait_for(lambda: log.read_text().count("mqtt.connected") > connections, "the connection to come back", 60)
    system.publish(recipe(B, "1.0.0", {"Run": "true"}))
    system.wait("d", system.deploy(target, {A: "1.0.0", B: "1.0.0"}, tags={"marram:watch_s": "0"}))

    assert f"component={A}" not in log.read_text()[len(before) :].replace(f"component={A}, effect=KEEP", "")
