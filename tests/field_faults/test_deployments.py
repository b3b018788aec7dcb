"""Part A: deployments that hang and block the device. Part C and G where they concern a device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nucleus.core import configuration, desired, document, errors, local
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 100000"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


async def test_nucleus_issue_1203_when_the_daemon_dies_in_a_deployment_then_it_and_the_next_one_end(
    tmp_path: Path,
) -> None:
    """Out of memory during a deployment: stuck IN_PROGRESS, later ones QUEUED, only pulling the plug helped."""
    root = tmp_path / "root"
    first = devices.Device(root)
    first.publish(
        recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.05; done"}), recipe(B, "1.0.0", STAYS)
    )
    async with first.running():
        one, two = first.submit({A: "1.0.0"}), first.submit({A: "1.0.0", B: "1.0.0"})
        await first.until(A, "STARTING")
    (root / "go").touch()

    again = devices.Device(root)
    async with again.running():
        assert (await again.end_of(one.id)).status == "SUCCEEDED"
        assert (await again.end_of(two.id)).status == "SUCCEEDED"


async def test_nucleus_issue_807_when_one_local_deployment_is_stuck_then_the_others_go_on(
    device: devices.Device,
) -> None:
    """One stuck local deployment blocks all others: here every one has a deadline and says what it waits for."""
    device.publish(recipe(A, "1.0.0", {"Startup": "sleep 1000"}), recipe(B, "1.0.0", STAYS))
    async with device.running():
        stuck, after = device.submit({A: "1.0.0"}, deadline_s=0.5), device.submit({B: "1.0.0"})
        first, second = await device.end_of(stuck.id), await device.end_of(after.id)

    assert "deadline" in first.cause
    assert A in first.cause
    assert second.status == "SUCCEEDED"


async def test_nucleus_issue_1161_when_a_component_is_broken_then_the_fix_can_be_deployed(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", {"Run": "exit 7"}), recipe(A, "1.0.1", STAYS))
    async with device.running():
        broken = await device.deploy({A: "1.0.0"}, failure_policy="DO_NOTHING", watch_s=20.0)
        fixed = await device.deploy({A: "1.0.1"})

    assert broken.status == "FAILED"
    assert fixed.status == "SUCCEEDED"


def test_nucleus_issue_1765_when_a_local_update_has_no_target_then_refused_not_ignored() -> None:
    """A local deployment cannot change a nucleus setting and "succeeds" with no effect."""
    with pytest.raises(errors.NucleusError, match="name it with its version"):
        document.local(
            local.LocalRequest(updates={"aws.greengrass.Nucleus": {"MERGE": {"deploymentPollingFrequencySeconds": 1}}}),
            deployment_id="d",
            created_ms=1,
            running_roots={},
        )


async def test_nucleus_issue_1765_when_named_with_its_version_then_the_setting_is_in_force(
    device: devices.Device,
) -> None:
    async with device.running():
        request = local.LocalRequest(
            add={"aws.greengrass.Nucleus": "2.15.0"},
            updates={"aws.greengrass.Nucleus": {"MERGE": {"logging": {"level": "DEBUG"}}}},
        )
        ended = await device.end_of(await device.deployer.create_local(request, "cli"))

    path = ("services", "aws.greengrass.Nucleus", "configuration", "logging", "level")
    assert ended.status == "SUCCEEDED"
    assert configuration.get(device.configuration.tree, path) == "DEBUG"


async def test_lite_issue_1151_when_another_job_is_first_then_the_next_one_is_carried_out_too(
    device: devices.Device,
) -> None:
    """The deployment stays QUEUED because another job is first in the queue."""
    device.publish(recipe(A, "1.0.0", {"Run": "exit 9"}), recipe(A, "1.0.1", STAYS))
    async with device.running():
        one, two = device.submit({A: "1.0.0"}, watch_s=20.0), device.submit({A: "1.0.1"})

        assert (await device.end_of(one.id)).status == "FAILED"
        assert (await device.end_of(two.id)).status == "SUCCEEDED"


async def test_lite_issue_1018_when_a_report_is_lost_then_it_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    """The device has finished, the cloud still says in progress."""

    class Deaf(devices.Reports):
        async def report(self, record: deployments.Record, state: str, details: dict[str, str], /) -> bool:
            await super().report(record, state, details)
            return False

    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", {"Run": "true"}))
    first.deployer.add_source(deployments.JOB, Deaf())
    async with first.running():
        assert (await first.deploy({A: "1.0.0"})).status == "SUCCEEDED"

    second = devices.Device(tmp_path / "root")
    async with second.running():
        second.deployer.wake_reports()  # as every connection does
        await second.reports.until("SUCCEEDED")


async def test_lite_issue_767_when_a_phase_is_gone_from_the_recipe_then_it_no_longer_runs(
    device: devices.Device,
) -> None:
    device.publish(
        recipe(A, "1.0.0", STAYS | {"Shutdown": "echo old >> ../shutdowns"}),
        recipe(A, "1.0.1", STAYS),
        recipe(A, "1.0.2", STAYS),
    )
    async with device.running():
        for version in ("1.0.0", "1.0.1", "1.0.2"):
            assert (await device.deploy({A: version})).status == "SUCCEEDED"

    # Once: when 1.0.0 made place for 1.0.1. Neither 1.0.1's end nor the nucleus's runs it again.
    assert (device.places.root / "work" / "shutdowns").read_text() == "old\n"


async def test_supervisor_pull_6726_when_the_new_version_fails_then_the_old_files_are_still_there(
    device: devices.Device, tmp_path: Path
) -> None:
    """The old image was removed before the health check, so a rollback had to download again."""
    files = tmp_path / "artifacts" / A / "1.0.0"
    files.mkdir(parents=True)
    (files / "word.txt").write_text("old")
    (tmp_path / "recipes").mkdir()
    old = recipe(A, "1.0.0", {"Run": "cat {artifacts:path}/word.txt > seen; exec sleep 100000"})
    old["Manifests"][0]["Artifacts"] = [{"URI": "s3://bucket/word.txt"}]
    (tmp_path / "recipes" / "a.json").write_text(json.dumps(old))
    request = local.LocalRequest(
        add={A: "1.0.0"}, recipe_directory=str(tmp_path / "recipes"), artifacts_directory=str(tmp_path / "artifacts")
    )
    device.publish(recipe(A, "2.0.0", {"Startup": "exit 1"}))
    async with device.running():
        assert (await device.end_of(await device.deployer.create_local(request, "cli"))).status == "SUCCEEDED"
        back = await device.deploy({A: "2.0.0"}, group=document.LOCAL_GROUP)
        await device.until(A, "RUNNING")

        assert back.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert device.supervisor.health()[A].version == "1.0.0"


async def test_supervisor_issue_4590_when_the_update_fails_then_the_rollback_happens_by_itself(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Run": "exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "2.0.0"}, watch_s=20.0)
        await device.until(A, "RUNNING")

        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert device.supervisor.health()[A].version == "1.0.0"


async def test_kubeedge_issue_3618_when_started_without_a_cloud_then_the_workloads_run(tmp_path: Path) -> None:
    """Reboot without the cloud: workloads stay down."""
    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", STAYS))
    async with first.running():
        await first.deploy({A: "1.0.0"})

    second = devices.Device(tmp_path / "root")  # no plane, no connection
    async with second.running():
        await second.until(A, "RUNNING")


async def test_nucleus_issue_1453_when_local_and_everything_is_there_then_no_registry_is_asked(
    device: devices.Device,
) -> None:
    """A local deployment still asks the registry although the image is there. (This device has none to ask.)"""
    folder = device.places.root / "authored"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(recipe(A, "1.0.0", {"Run": "true"})))
    async with device.running():
        request = local.LocalRequest(add={A: "1.0.0"}, recipe_directory=str(folder))
        ended = await device.end_of(await device.deployer.create_local(request, "cli"))

    assert ended.status == "SUCCEEDED"
    assert set(desired.installed(device.configuration.tree)) == {A}
