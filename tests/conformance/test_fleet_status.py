"""Behaviours 61 to 63 of the specification: what the device tells of deployments and components, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nucleus.actors import fleet_status
from nucleus.core import local
from nucleus.core.lifecycle import State
from nucleus.host import logs
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors import test_fleet_status as fleet
from tests.nucleus.actors.device import recipe

A, B, C = "com.example.A", "com.example.B", "com.example.C"
STAYS = {"Run": "exec sleep 1000"}


def status_of(device: devices.Device, cloud: fleet.Cloud) -> fleet_status.FleetStatus:
    return fleet_status.FleetStatus(
        cloud,
        thing="t1",
        platform=devices.PLATFORM,
        store=device.configuration,
        health=device.supervisor.health,
        log=logs.Log("test", directory=device.places.logs),
        spacing_s=0.01,
    )


async def told(device: devices.Device, record: deployments.Record, source: str = deployments.JOB) -> dict[str, Any]:
    """The message about a deployment that has ended, as if it had come from `source`."""
    cloud = fleet.Cloud()
    status = status_of(device, cloud)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(status.run())
        status.connected()
        assert (await cloud.next())["trigger"] == "NUCLEUS_LAUNCH"
        status.deployment_ended(msgspec.structs.replace(record, source=source))
        message = await cloud.next()
        task.cancel()
    return message


@pytest.mark.parametrize(
    ("source", "trigger"),
    [
        (deployments.JOB, "THING_GROUP_DEPLOYMENT"),
        (deployments.SHADOW, "THING_DEPLOYMENT"),
        (deployments.LOCAL, "LOCAL_DEPLOYMENT"),
    ],
)
async def test_61_deployment_when_it_ends_then_one_message_with_trigger_ids_components_and_unchanged_roots(
    tmp_path: Path, source: str, trigger: str
) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(
        recipe(A, "1.0.0", STAYS, ComponentDependencies={C: {"VersionRequirement": "*"}}),
        recipe(B, "1.0.0", STAYS),
        recipe(B, "2.0.0", STAYS),
        recipe(C, "1.0.0", STAYS),
    )
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        record = device.submit({A: "1.0.0", B: "2.0.0"})
        await device.end_of(record.id)
        changed = await told(device, record, source)
        again = device.submit({A: "1.0.0", B: "2.0.0"})
        await device.end_of(again.id)
        same = await told(device, again, source)

    assert changed["trigger"] == trigger
    about = changed["deploymentInformation"]
    assert (about["status"], about["deploymentId"]) == ("SUCCEEDED", record.id)
    assert about["fleetConfigurationArnForStatus"] == record.document.configuration_arn
    assert about["unchangedRootComponents"] == [A]
    listed = {one["componentName"]: (one["version"], one["isRoot"]) for one in changed["components"]}
    assert listed == {A: ("1.0.0", True), B: ("2.0.0", True), C: ("1.0.0", False)}
    assert same["deploymentInformation"]["unchangedRootComponents"] == [A, B]


async def test_61_deployment_when_it_fails_then_the_error_stack_is_told(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(recipe(A, "1.0.0", {"Startup": "exit 1"}))
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.end_of(record.id)
        message = await told(device, record)
        ended = await device.deployer.create_local(local.LocalRequest(add={"com.example.None": "1.0.0"}), "cli")
        assert (await device.end_of(ended)).status == "FAILED"

    details = message["deploymentInformation"]["statusDetails"]
    assert message["deploymentInformation"]["status"] == "FAILED"
    assert details["detailedStatus"] == "FAILED_ROLLBACK_COMPLETE"
    assert details["errorStack"] == ["DEPLOYMENT_FAILURE", "COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN"]
    assert A in details["failureCause"]
    assert message["components"] == []


async def test_62_launch_when_connected_late_then_its_message_first_and_terminal_states_after_the_spacing(
    tmp_path: Path,
) -> None:
    world = fleet.World(tmp_path)
    world.cloud.connected = False
    world.become(A, State.STARTING)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.fleet.run())
        await asyncio.sleep(0)
        assert world.cloud.told.empty()
        world.cloud.connected = True
        world.fleet.connected()
        first = await world.cloud.next()
        world.become(A, State.RUNNING)
        second = await world.cloud.next()
        task.cancel()

    assert fleet_status.SPACING_S >= 3
    assert (first["trigger"], first["messageType"]) == ("NUCLEUS_LAUNCH", "COMPLETE")
    assert (second["messageType"], fleet.states(second)) == ("PARTIAL", {A: "RUNNING"})
    assert second["timestamp"] - first["timestamp"] >= 50 - 5  # the test's spacing, in whole milliseconds


async def test_62_status_when_the_interval_passes_then_a_complete_message_again_and_again(tmp_path: Path) -> None:
    world = fleet.World(tmp_path)
    world.become(A, State.RUNNING)
    world.fleet = fleet_status.FleetStatus(
        world.cloud,
        thing="t1",
        platform=devices.PLATFORM,
        store=world.store,
        health=lambda: dict(world.health),
        log=logs.Log("test", directory=tmp_path),
        cadence_s=0.05,
    )
    async with world.running():
        messages = [await world.cloud.next() for _ in range(3)]

    assert [one["trigger"] for one in messages] == ["NUCLEUS_LAUNCH", "CADENCE", "CADENCE"]
    assert [one["messageType"] for one in messages] == ["COMPLETE"] * 3
    assert fleet_status.CADENCE_S == 86_400


@pytest.mark.parametrize("names", [(A,), (A, B), (A, B, C)])
async def test_63_components_when_they_err_and_recover_then_each_error_and_one_recovery_is_told(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    world = fleet.World(tmp_path)
    for name in names:
        world.become(name, State.RUNNING)
    async with world.running():
        assert (await world.cloud.next())["trigger"] == "NUCLEUS_LAUNCH"
        for name in names:
            world.become(name, State.ERRORED)
            assert fleet.states(await world.cloud.next()) == {name: "ERRORED"}
        for name in names:
            world.become(name, State.STARTING)
        for name in names:
            world.become(name, State.RUNNING)
        recovery = await world.cloud.next()

    assert fleet.states(recovery) == dict.fromkeys(names, "RUNNING")
    assert world.cloud.told.empty()
