"""Deployments from submission to report, with real processes and files, without a cloud."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nucleus.core import configuration, desired, document, local, release
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "echo up; exec sleep 1000"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def installed(device: devices.Device) -> dict[str, str]:
    return {name: one.version for name, one in desired.installed(device.configuration.tree).items()}


def setting(device: devices.Device, name: str, key: str) -> object:
    return configuration.get(device.configuration.tree, ("services", name, "configuration", key))


async def test_deploy_when_one_shot_then_succeeded_and_reported_in_order(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", {"Run": "echo hello > out.txt"}))
    async with device.running():
        result = await device.deploy({A: "1.0.0"})
        await device.reports.until("SUCCEEDED")

    assert (result.status, result.detailed) == ("SUCCEEDED", "SUCCESSFUL")
    assert (device.places.work(A) / "out.txt").read_text() == "hello\n"
    assert device.reports.seen[0][1] == "IN_PROGRESS"
    assert device.reports.seen[-1][2] == {"detailed-deployment-status": "SUCCESSFUL"}


async def test_deploy_when_the_same_twice_then_nothing_restarts(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        before = device.supervisor.health()[A].pids
        result = await device.deploy({A: "1.0.0"})

        assert result.status == "SUCCEEDED"
        assert device.supervisor.health()[A].pids == before


async def test_deploy_when_new_version_breaks_then_old_one_and_its_configuration_return(device: devices.Device) -> None:
    device.publish(
        recipe(A, "1.0.0", STAYS, ComponentConfiguration={"DefaultConfiguration": {"speed": 1}}),
        recipe(A, "2.0.0", {"Run": "exit 7"}, ComponentConfiguration={"DefaultConfiguration": {"extra": True}}),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: document.Wish(version="2.0.0", merge={"speed": 9})}, watch_s=20.0)
        await device.until(A, "RUNNING")

        assert (result.status, result.detailed) == ("FAILED", "FAILED_ROLLBACK_COMPLETE")
        assert "com.example.A 2.0.0 died within the watch window" in result.cause
        assert result.stack[:2] == ("DEPLOYMENT_FAILURE", "COMPONENT_UPDATE_ERROR")
        assert device.supervisor.health()[A].version == "1.0.0"
    assert installed(device) == {A: "1.0.0"}
    assert setting(device, A, "speed") == 1
    with pytest.raises(KeyError):
        setting(device, A, "extra")


async def test_deploy_when_do_nothing_and_breaks_then_new_state_stays(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", {"Run": "exit 7"}))
    async with device.running():
        result = await device.deploy({A: "1.0.0"}, failure_policy="DO_NOTHING", watch_s=20.0)

    assert result.detailed == "FAILED_ROLLBACK_NOT_REQUESTED"
    assert installed(device) == {A: "1.0.0"}


async def test_deploy_when_broken_before_then_a_fixing_deployment_succeeds(device: devices.Device) -> None:
    """aws-greengrass-nucleus issue 1161: a BROKEN component, and the fix cannot be deployed."""
    device.publish(recipe(A, "1.0.0", {"Run": "exit 7"}), recipe(A, "1.0.1", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"}, failure_policy="DO_NOTHING", watch_s=20.0)
        result = await device.deploy({A: "1.0.1"})

    assert result.status == "SUCCEEDED"


async def test_deploy_when_it_dies_300_ms_after_its_start_then_the_watch_window_rolls_back(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", {"Run": "sleep 0.3; exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "1.1.0"}, watch_s=20.0)

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "died within the watch window" in result.cause or "BROKEN" in result.cause


async def test_deploy_when_it_never_starts_then_fails_with_what_it_waited_for(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", {"Startup": {"Script": "sleep 1000", "Timeout": 1}}))
    async with device.running():
        result = await device.deploy({A: "1.0.0"})

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "STARTUP_TIMEOUT" in result.cause
    assert installed(device) == {}


async def test_deploy_when_the_deadline_passes_then_it_ends_and_says_why(device: devices.Device) -> None:
    """aws-greengrass-nucleus issue 807: one stuck deployment blocks all others."""
    device.publish(recipe(A, "1.0.0", {"Startup": "sleep 1000"}), recipe(B, "1.0.0", STAYS))
    async with device.running():
        stuck = device.submit({A: "1.0.0"}, deadline_s=1.0)
        after = device.submit({B: "1.0.0"})
        first = await device.end_of(stuck.id)
        second = await device.end_of(after.id)

    assert "deadline" in first.cause
    assert "com.example.A STARTING" in first.cause
    assert second.status == "SUCCEEDED"


async def test_deploy_when_a_root_is_gone_then_removed_last_and_uninstalled(device: devices.Device) -> None:
    device.publish(
        recipe(A, "1.0.0", STAYS | {"Uninstall": "echo gone > ../uninstalled"}),
        recipe(B, "1.0.0", {"Run": f"test -d ../{A} && pgrep -f 'sleep 1000' > /dev/null && echo seen > seen"}),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({B: "1.0.0"})

        assert result.status == "SUCCEEDED"
        assert set(device.supervisor.health()) == {B}
    assert installed(device) == {B: "1.0.0"}
    assert (device.places.root / "work" / "uninstalled").read_text() == "gone\n"
    assert (device.places.work(B) / "seen").exists()


async def test_deploy_when_a_failed_one_removes_then_nothing_is_removed(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", {"Run": "exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({B: "1.0.0"}, watch_s=20.0)
        await device.until(A, "RUNNING")

        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert set(device.supervisor.health()) == {A}


@pytest.mark.parametrize(
    ("recipes", "wanted", "code", "said"),
    [
        ([], {A: "1.0.0"}, "NO_AVAILABLE_COMPONENT_VERSION", "com.example.A"),
        (
            [
                recipe(A, "1.0.0", {}, ComponentDependencies={B: {"VersionRequirement": "^2.0.0"}}),
                recipe(B, "1.0.0", {}),
            ],
            {A: "1.0.0", B: "1.0.0"},
            "COMPONENT_VERSION_REQUIREMENTS_NOT_MET",
            "com.example.A requires ^2.0.0",
        ),
        (
            [
                recipe(A, "1.0.0", {}, ComponentDependencies={B: {"VersionRequirement": "*"}}),
                recipe(B, "1.0.0", {}, ComponentDependencies={A: {"VersionRequirement": "*"}}),
            ],
            {A: "1.0.0"},
            "COMPONENT_CIRCULAR_DEPENDENCY_ERROR",
            "com.example.A -> com.example.B -> com.example.A",
        ),
        (
            [recipe(A, "1.0.0", {}) | {"Manifests": [{"Artifacts": [{"URI": "s3://b/k.txt"}]}]}],
            {A: "1.0.0"},
            "ARTIFACT_DOWNLOAD_ERROR",
            "k.txt of com.example.A 1.0.0",
        ),
        (
            [recipe(A, "1.0.0", {}) | {"Manifests": [{"Artifacts": [{"URI": "docker:example/image:1"}]}]}],
            {A: "1.0.0"},
            "MISSING_DOCKER_APPLICATION_MANAGER",
            "docker:example/image:1: this nucleus runs no containers yet",
        ),
        (
            [
                recipe(A, "1.0.0", {}, ComponentDependencies={release.COMPONENT: {"VersionRequirement": "^9.0.0"}}),
                recipe(release.COMPONENT, "9.0.0", {}, ComponentType=release.COMPONENT_TYPE),
            ],
            {A: "1.0.0"},
            "UNAUTHORIZED_NUCLEUS_MINOR_VERSION_UPDATE",
            "to 9.0.0 as a mere dependency",
        ),
    ],
)
async def test_deploy_when_it_cannot_be_prepared_then_no_state_change(
    device: devices.Device, recipes: list[dict[str, object]], wanted: dict[str, str], code: str, said: str
) -> None:
    device.publish(*recipes)
    async with device.running():
        result = await device.deploy(wanted)

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert code in result.stack
    assert said in result.cause
    assert installed(device) == {}


async def test_submit_when_older_than_the_last_of_its_group_then_rejected(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", {"Run": "true"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({}, created_ms=1)

    assert (result.status, result.stack[1]) == ("REJECTED", "REJECTED_STALE_DEPLOYMENT")
    assert installed(device) == {A: "1.0.0"}


async def test_create_local_when_configuration_merged_then_interpolated_and_restarted(device: devices.Device) -> None:
    folder = device.places.root / "authored"
    folder.mkdir(parents=True)
    script = {"Run": "echo {configuration:/word} {configuration:/none} > out.txt; exec sleep 1000"}
    defaults = {"ComponentConfiguration": {"DefaultConfiguration": {"word": "one"}}}
    (folder / "r.json").write_text(json.dumps(recipe(A, "1.0.0", script, **defaults)))
    async with device.running():
        first = await device.deployer.create_local(
            local.LocalRequest(add={A: "1.0.0"}, recipe_directory=str(folder)), "cli"
        )
        assert (await device.end_of(first)).status == "SUCCEEDED"
        before = device.supervisor.health()[A].pids
        request = local.LocalRequest(add={A: "1.0.0"}, updates={A: {"MERGE": {"word": "two"}}})
        second = await device.deployer.create_local(request, "cli")
        assert (await device.end_of(second)).status == "SUCCEEDED"

        assert device.supervisor.health()[A].pids != before
        listed = device.deployer.list()
    assert [one.status for one in listed] == ["SUCCEEDED", "SUCCEEDED"]
    assert (device.places.work(A) / "out.txt").read_text() == "two {configuration:/none}\n"


@pytest.mark.parametrize("wanted", [True, False])
async def test_deploy_when_configuration_names_system_variables_then_put_in_only_if_the_nucleus_is_told_so(
    device: devices.Device, wanted: bool
) -> None:
    defaults = {"where": "{work:path}/x", "rules": ["{iot:thingName}/#", 1], "own": "{configuration:/where}"}
    device.publish(recipe(A, "1.0.0", STAYS, ComponentConfiguration={"DefaultConfiguration": defaults}))
    told = document.Wish(version="2.15.0", merge={"interpolateComponentConfiguration": wanted})
    async with device.running():
        result = await device.deploy({A: "1.0.0", release.CLAIMED: told})

        assert result.status == "SUCCEEDED"
        found = device.configuration.component(A)
    filled = {"where": f"{device.places.work(A)}/x", "rules": ["t1/#", 1], "own": "{configuration:/where}"}
    assert found == (filled if wanted else defaults)


async def test_restart_when_committed_but_undecided_then_carried_on_to_the_end(tmp_path: Path) -> None:
    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.05; done"}))
    async with first.running():
        record = first.submit({A: "1.0.0"})
        await first.until(A, "STARTING")
    (tmp_path / "root" / "go").touch()

    second = devices.Device(tmp_path / "root")
    async with second.running():
        result = await second.end_of(record.id)

    assert result.detailed == "SUCCESSFUL"
    assert installed(second) == {A: "1.0.0"}


async def test_restart_when_the_third_launch_finds_it_undecided_then_planned_back(tmp_path: Path) -> None:
    """Issue "The device core", e: a deployment that ends the nucleus each time is not tried for ever."""
    root = tmp_path / "root"
    first = devices.Device(root)
    first.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Startup": "sleep 1000"}))
    async with first.running():
        await first.deploy({A: "1.0.0"})
        record = first.submit({A: "2.0.0"})
        await first.until(A, "STARTING")
    for _ in range(2):
        async with devices.Device(root).running() as again:
            await again.until(A, "STARTING")

    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(record.id)

        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert last.supervisor.health()[A].version == "1.0.0"
    assert "without reaching the end" in result.cause
