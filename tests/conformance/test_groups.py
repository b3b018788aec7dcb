"""Behaviours 13.4 of the specification: several groups, membership, and deployments on behalf of a group."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.core import configuration, desired, document, local
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B, COMMON = "com.example.A", "com.example.B", "com.example.Common"
FARM, NORTH = "thinggroup/farm", "thinggroup/north"
STAYS = {"Run": "exec sleep 1000"}


@pytest.fixture
def plane() -> devices.Plane:
    return devices.Plane({"farm", "north"})


@pytest.fixture
def device(tmp_path: Path, plane: devices.Plane) -> devices.Device:
    made = devices.Device(tmp_path / "root", plane=plane)
    made.publish(*(recipe(name, f"{number}.0.0", STAYS) for name in (A, B, COMMON) for number in (1, 2, 3)))
    made.publish(recipe(A, "9.0.0", {"Install": "exit 1", **STAYS}))
    return made


def installed(device: devices.Device) -> dict[str, str]:
    return {name: one.version for name, one in desired.installed(device.configuration.tree).items()}


async def test_49_two_groups_when_deployed_then_both_sets_run_and_leaving_takes_the_rest_but_a_common_root(
    device: devices.Device, plane: devices.Plane
) -> None:
    async with device.running():
        plane.groups = {"farm", "north"}
        await device.deploy({A: "1.0.0", COMMON: "1.0.0"}, group=FARM)
        await device.deploy({B: "1.0.0", COMMON: "1.0.0"}, group=NORTH)
        both = installed(device)
        plane.groups = {"north"}
        unchanged = installed(device)
        await device.deploy({B: "1.0.0", COMMON: "1.0.0"}, group=NORTH)

        assert both == unchanged == {A: "1.0.0", B: "1.0.0", COMMON: "1.0.0"}
        assert installed(device) == {B: "1.0.0", COMMON: "1.0.0"}
        assert set(device.supervisor.health()) == {B, COMMON}


async def test_50_two_groups_when_they_want_different_versions_then_conflict_until_the_first_is_left(
    device: devices.Device, plane: devices.Plane
) -> None:
    async with device.running():
        plane.groups = {"farm", "north"}
        await device.deploy({A: "1.0.0"}, group=FARM)
        conflict = await device.deploy({A: "2.0.0"}, group=NORTH)
        plane.groups = {"north"}
        result = await device.deploy({A: "2.0.0"}, group=NORTH)

        assert conflict.detailed == "FAILED_NO_STATE_CHANGE"
        assert FARM in conflict.cause
        assert NORTH in conflict.cause
        assert result.status == "SUCCEEDED"
        assert installed(device) == {A: "2.0.0"}


async def test_51_removal_when_the_next_deployment_is_rolled_back_or_changes_nothing_then_not_removed(
    device: devices.Device, plane: devices.Plane
) -> None:
    async with device.running():
        plane.groups = {"farm", "north"}
        await device.deploy({B: "1.0.0"}, group=FARM)
        plane.groups = {"north"}
        rolled_back = await device.deploy({A: "9.0.0"}, group=NORTH)
        after_rollback = installed(device)
        unchanged = await device.deploy({A: "7.0.0"}, group=NORTH)

        assert rolled_back.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert unchanged.detailed == "FAILED_NO_STATE_CHANGE"
        assert after_rollback == installed(device) == {B: "1.0.0"}
        assert desired.roots(device.configuration.tree) == {FARM: {B: "1.0.0"}}


async def test_52_thing_components_when_a_group_is_deployed_then_kept_and_an_offline_local_one_removes_nothing(
    device: devices.Device, plane: devices.Plane
) -> None:
    async with device.running():
        plane.groups = {"farm"}
        await device.deploy({A: "1.0.0"}, group="thing/t1", source=deployments.SHADOW)
        await device.deploy({B: "1.0.0"}, group=FARM)
        both = installed(device)
        plane.groups = None  # cannot be asked
        request = local.LocalRequest(add={COMMON: "1.0.0"}, recipe_directory=str(device.places.root / "published"))
        result = await device.end_of(await device.deployer.create_local(request, "me"))

        assert both == {A: "1.0.0", B: "1.0.0"}
        assert result.status == "SUCCEEDED"
        assert installed(device) == {A: "1.0.0", B: "1.0.0", COMMON: "1.0.0"}


async def test_53_sub_deployment_when_made_then_overrides_the_parent_and_the_latest_created_wins(
    device: devices.Device, plane: devices.Plane
) -> None:
    async with device.running():
        plane.groups = {"farm", "retry", "other"}
        start = device.configuration.now() - 10_000

        async def on_behalf(target: str, version: str, created_ms: int) -> str:
            wanted = document.read_cloud(
                {
                    "deploymentId": f"{target}-{created_ms}",
                    "configurationArn": f"arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/{target}:1",
                    "onBehalfOf": "arn:aws:iot:us-east-1:123456789012:thinggroup/farm",
                    "parentTargetArn": "arn:aws:iot:us-east-1:123456789012:thinggroup/farm",
                    "requiredCapabilities": ["SUB_DEPLOYMENTS"],
                    "creationTimestamp": created_ms,
                    "components": {A: {"version": version}},
                    "marram": {"watch_s": "0"},
                }
            )
            device.submit({})  # only to have the recipes in the store
            device.deployer.submit(
                deployments.Record(document=wanted, source=deployments.JOB, carrier=target, queued_ms=created_ms)
            )
            return (await device.end_of(wanted.deployment_id)).status

        await device.deploy({A: "1.0.0", B: "1.0.0"}, group=FARM, created_ms=start)
        outcome = [await on_behalf("retry", "2.0.0", start + 100)]
        overridden = installed(device)
        outcome += [await on_behalf("other", "3.0.0", start + 200), await on_behalf("retry", "2.0.0", start + 150)]
        latest = installed(device)
        await device.deploy({A: "1.0.0", B: "1.0.0"}, group=FARM, created_ms=start + 300)

        assert outcome == ["SUCCEEDED", "SUCCEEDED", "REJECTED"]
        assert overridden == {A: "2.0.0"}
        assert latest == {A: "3.0.0"}
        assert installed(device) == {A: "1.0.0", B: "1.0.0"}
        assert configuration.get(device.configuration.tree, (*desired.LAST, FARM, "timestamp")) == start + 300
