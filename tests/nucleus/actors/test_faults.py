"""Faults around deployments: crashes between durable writes, a full disk, deliveries that repeat, replace or vanish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus.core import configuration, desired, document, errors, local, negotiate
from nucleus.host import places
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B, C = "com.example.A", "com.example.B", "com.example.C"
STAYS = {"Run": "echo up; exec sleep 1000"}
FAILS = {"Run": "exit 7"}
NEEDS_B = {"ComponentDependencies": {B: {"VersionRequirement": "*", "DependencyType": "HARD"}}}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def installed(device: devices.Device) -> dict[str, str]:
    return {name: one.version for name, one in desired.installed(device.configuration.tree).items()}


def roots(device: devices.Device, group: str = devices.GROUP) -> dict[str, str]:
    return desired.roots(device.configuration.tree).get(group, {})


def setting(device: devices.Device, name: str, key: str) -> object:
    return configuration.get(device.configuration.tree, ("services", name, "configuration", key))


def write(device: devices.Device, name: str, key: str, value: object, stamp: int) -> None:
    """What UpdateConfiguration of a component does."""
    path = ("services", name, "configuration", key)
    _, changes = configuration.merge(device.configuration.tree, path, value, stamp, f"component:{name}")
    device.configuration.commit(changes)


class Records(deployments.DeploymentStore):
    """Refuses to save while `full`; forgets saves of ended records when `crashing`."""

    full = False
    crashing = False

    def save(self, record: deployments.Record) -> None:
        if self.full:
            raise errors.NucleusError("DISK_SPACE_CRITICAL", f"cannot record deployment {record.id}: disk full")
        if not (self.crashing and record.result is not None):
            super().save(record)


class Configuration(configuration_store.ConfigurationStore):
    """Refuses the next `refusals` commits."""

    refusals = 0

    def commit(self, changes: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            raise errors.NucleusError("DISK_SPACE_CRITICAL", "cannot write configuration.journal: disk full")
        super().commit(changes)


# ---- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["ROLLBACK", "DO_NOTHING"])
async def test_restart_when_settled_but_the_result_was_lost_then_same_result_at_once(
    tmp_path: Path, policy: str
) -> None:
    """A crash after the last commit and before the record says so must neither repeat nor undo the deployment."""
    records = Records(places.Places(tmp_path / "root"))
    first = devices.Device(tmp_path / "root", records=records)
    first.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", FAILS if policy == "DO_NOTHING" else STAYS))
    async with first.running():
        await first.deploy({A: "1.0.0"})
        records.crashing = True
        ended = await first.deploy({B: "1.0.0"}, failure_policy=policy, watch_s=20.0 if policy == "DO_NOTHING" else 0)
        before = roots(first)

    for _ in range(4):  # more launches than a looping deployment gets
        again = devices.Device(tmp_path / "root", records=records)
        async with again.running():
            result = await again.ended.get()
        assert result.result is not None
        assert result.result.detailed == ended.detailed
        assert result.result.cause == ended.cause
        assert roots(again) == before == {B: "1.0.0"}


async def test_restart_when_rolled_back_but_the_result_was_lost_then_still_rolled_back(tmp_path: Path) -> None:
    records = Records(places.Places(tmp_path / "root"))
    first = devices.Device(tmp_path / "root", records=records)
    first.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", FAILS))
    async with first.running():
        await first.deploy({A: "1.0.0"})
        records.crashing = True
        await first.deploy({A: "2.0.0"}, watch_s=20.0)

    again = devices.Device(tmp_path / "root", records=records)
    async with again.running():
        result = (await again.ended.get()).result

        assert result is not None
        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert "com.example.A 2.0.0" in result.cause
        assert again.supervisor.health()[A].version == "1.0.0"


async def test_restart_when_a_record_is_damaged_then_put_aside_and_the_job_runs_again_without_loss(
    tmp_path: Path,
) -> None:
    """A committed deployment without its record, delivered again: nothing that it installed may be removed."""
    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.05; done"}))
    async with first.running():
        record = first.submit({A: "1.0.0"})
        await first.until(A, "STARTING")
    (tmp_path / "root" / "go").touch()
    path = first.places.deployments / record.id / "record.json"
    path.write_bytes(b'{"document":')

    second = devices.Device(tmp_path / "root")
    async with second.running():
        assert not path.exists()
        second.deployer.submit(deployments.Record(document=record.document, source="job", carrier=record.carrier))
        result = await second.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert installed(second) == roots(second) == {A: "1.0.0"}
    assert path.with_name("record.json.damaged").exists()


# ---- a disk that does not take it -------------------------------------------------------------------------------------


async def test_submit_when_the_record_cannot_be_saved_then_failed_and_reported(tmp_path: Path) -> None:
    records = Records(places.Places(tmp_path / "root"))
    device = devices.Device(tmp_path / "root", records=records)
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        records.full = True
        result = await device.deploy({A: "1.0.0"})
        await device.reports.until("FAILED")
        records.full = False
        after = await device.deploy({A: "1.0.0"})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert "DISK_SPACE_CRITICAL" in result.stack
    assert after.status == "SUCCEEDED"


async def test_commit_when_the_disk_refuses_it_then_no_state_change(tmp_path: Path) -> None:
    store = Configuration(tmp_path / "root" / "config")
    device = devices.Device(tmp_path / "root", configuration=store)
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        store.refusals = 1
        result = await device.deploy({A: "1.0.0"})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert installed(device) == {}


async def test_settle_when_the_disk_is_full_then_waits_for_it_and_says_so(tmp_path: Path) -> None:
    store = Configuration(tmp_path / "root" / "config")
    device = devices.Device(tmp_path / "root", configuration=store, write_again_s=0.05)
    device.publish(recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.05; done"}))
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.until(A, "STARTING")
        store.refusals = 2
        (tmp_path / "root" / "go").touch()
        result = await device.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert roots(device) == {A: "1.0.0"}
    assert any("disk full" in details.get("marram-waiting-for", "") for _, _, details in device.reports.seen)


async def test_roll_back_when_the_disk_is_full_then_it_is_completed_later(tmp_path: Path) -> None:
    store = Configuration(tmp_path / "root" / "config")
    device = devices.Device(tmp_path / "root", configuration=store, write_again_s=0.05)
    device.publish(
        recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Startup": "while ! test -e ../../go; do :; done; exit 1"})
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        record = device.submit({A: "2.0.0"})
        await device.until(A, "STARTING")
        store.refusals = 2
        (tmp_path / "root" / "go").touch()
        result = await device.end_of(record.id)

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert installed(device) == {A: "1.0.0"}


async def test_carry_out_when_something_unforeseen_fails_then_only_this_deployment_does(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    (device.places.root / "fault").write_text("pause-before-activation:for ever")  # no number
    async with device.running():
        result = await device.deploy({A: "1.0.0"})
        (device.places.root / "fault").unlink()
        after = await device.deploy({A: "1.0.0"})

    assert (result.detailed, result.stack[1]) == ("FAILED_NO_STATE_CHANGE", "DEPLOYMENT_INTERRUPTED")
    assert after.status == "SUCCEEDED"


# ---- deliveries ---------------------------------------------------------------------------------------------------------


async def test_submit_when_delivered_again_after_its_end_then_reported_again_and_not_repeated(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", {"Run": "echo once >> ../../runs"}))
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.end_of(record.id)
        await device.reports.until("SUCCEEDED")
        told = len(device.reports.seen)
        device.deployer.submit(
            deployments.Record(
                document=record.document, source="job", carrier=record.carrier, queued_ms=record.queued_ms
            )
        )
        await device.reports.until("SUCCEEDED", told)

    assert (device.places.root / "runs").read_text() == "once\n"


async def test_submit_when_queued_anew_by_the_service_then_carried_out_again(device: devices.Device) -> None:
    """A device that left its group and came back: the same job, queued later. Its components are gone, so it must run."""
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS))
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.end_of(record.id)
        await device.deploy({B: "1.0.0"}, group="thinggroup/other")
        again = deployments.Record(
            document=record.document, source="job", carrier=record.carrier, queued_ms=record.queued_ms + 1000
        )
        device.deployer.submit(again)
        result = await device.end_of(record.id)

        assert result.status == "SUCCEEDED"
    assert installed(device) == {A: "1.0.0", B: "1.0.0"}
    assert roots(device) == {A: "1.0.0"}


async def test_keep_jobs_when_a_queued_one_is_not_listed_then_cancelled_and_runs_if_it_comes_back(
    device: devices.Device,
) -> None:
    device.publish(
        recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.05; done"}), recipe(B, "1.0.0", STAYS)
    )
    async with device.running():
        running = device.submit({A: "1.0.0"})
        await device.until(A, "STARTING")
        queued = device.submit({B: "1.0.0"})
        device.deployer.keep_jobs(frozenset({running.carrier}))
        cancelled = await device.end_of(queued.id)
        device.deployer.submit(
            deployments.Record(
                document=queued.document, source="job", carrier=queued.carrier, queued_ms=queued.queued_ms
            )
        )
        (device.places.root / "go").touch()
        first = await device.end_of(running.id)
        second = await device.end_of(queued.id)

    assert (cancelled.status, first.status, second.status) == ("CANCELED", "SUCCEEDED", "SUCCEEDED")


async def test_keep_jobs_when_the_running_one_has_changed_nothing_then_cancelled(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    (device.places.root / "fault").write_text("pause-before-activation:0.5")
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.reports.until("IN_PROGRESS")
        device.deployer.keep_jobs(frozenset({"another"}))
        result = await device.end_of(record.id)

    assert result.status == "CANCELED"
    assert installed(device) == {}


async def test_submit_when_shadow_deployments_replace_each_other_quickly_then_only_the_last_runs(
    device: devices.Device,
) -> None:
    device.publish(*(recipe(A, f"{number}.0.0", STAYS) for number in (1, 2, 3)))
    (device.places.root / "fault").write_text("pause-before-activation:0.3")
    async with device.running():
        sent = [
            device.submit({A: f"{number}.0.0"}, group="thing/t1", source=deployments.SHADOW) for number in (1, 2, 3)
        ]
        ends = {}
        for _ in sent:
            record = await device.ended.get()
            assert record.result is not None
            ends[record.id] = record.result.status

    assert [ends[one.id] for one in sent] == ["CANCELED", "CANCELED", "SUCCEEDED"]
    assert installed(device) == {A: "3.0.0"}


async def test_create_local_when_several_are_queued_then_each_keeps_what_the_others_added(
    device: devices.Device,
) -> None:
    """Conformance 45; the roots are those when a deployment begins, not those when it was asked for."""
    folder = device.places.root / "authored"
    folder.mkdir(parents=True)
    async with device.running():
        ids = []
        for name in (A, B, C):
            (folder / "r.yaml").write_text(yaml.safe_dump(recipe(name, "1.0.0", STAYS)))
            request = local.LocalRequest(add={name: "1.0.0"}, recipe_directory=str(folder))
            ids.append(await device.deployer.create_local(request, "cli"))
        ends = [await device.end_of(one) for one in ids]

    assert [one.status for one in ends] == ["SUCCEEDED"] * 3
    assert set(installed(device)) == {A, B, C}


class Silent(devices.Plane):
    """A network that swallows everything."""

    async def thing_groups(self) -> set[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        await asyncio.Event().wait()
        raise AssertionError


async def test_create_local_when_the_network_swallows_everything_then_goes_on_without_the_cloud(tmp_path: Path) -> None:
    """aws-greengrass-nucleus pull 810, 1049: local deployments wait for the cloud."""
    device = devices.Device(tmp_path / "root", plane=Silent(None), local_once_s=0.05)
    device.publish(recipe(A, "1.0.0", STAYS, **NEEDS_B), recipe(B, "1.0.0", STAYS))
    folder = str(device.places.root / "published")
    async with device.running():
        mine = await device.deployer.create_local(local.LocalRequest(add={A: "1.0.0"}, recipe_directory=folder), "cli")

        assert (await device.end_of(mine)).status == "SUCCEEDED"
    assert installed(device) == {A: "1.0.0", B: "1.0.0"}


async def test_create_local_when_a_job_is_queued_then_both_end_and_keep_their_groups(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS))
    async with device.running():
        job = device.submit({A: "1.0.0"})
        mine = await device.deployer.create_local(local.LocalRequest(add={B: "1.0.0"}), "cli")
        assert (await device.end_of(job.id)).status == "SUCCEEDED"
        assert (await device.end_of(mine)).status == "SUCCEEDED"

    assert roots(device) == {A: "1.0.0"}
    assert roots(device, document.LOCAL_GROUP) == {B: "1.0.0"}


async def test_deploy_when_thing_and_group_and_then_nothing_then_only_the_own_group_is_emptied(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"}, group="thing/t1")
        await device.deploy({B: "1.0.0"})
        both = installed(device)
        result = await device.deploy({})

        assert result.status == "SUCCEEDED"
        assert set(device.supervisor.health()) == {A}
    assert both == {A: "1.0.0", B: "1.0.0"}
    assert installed(device) == {A: "1.0.0"}
    assert roots(device) == {}


async def test_deploy_when_two_groups_want_different_versions_then_the_second_is_refused(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "2.0.0"}, group="thinggroup/other")

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert devices.GROUP in result.cause
    assert installed(device) == {A: "1.0.0"}


# ---- the way back ---------------------------------------------------------------------------------------------------------


async def test_roll_back_when_a_dependency_was_added_then_it_is_gone_again(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", FAILS, **NEEDS_B), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "2.0.0"}, watch_s=20.0)
        await device.until(A, "RUNNING")

        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert set(device.supervisor.health()) == {A}
    assert installed(device) == {A: "1.0.0"}


async def test_roll_back_when_something_waited_for_a_broken_component_before_then_nobody_waits_for_it(
    device: devices.Device,
) -> None:
    """Conformance 36, with a dependent: spec/nucleus.md 5.8."""
    device.publish(
        recipe(A, "1.0.0", STAYS, **NEEDS_B),
        recipe(B, "1.0.0", {"Startup": "exit 1"}),
        recipe(C, "1.0.0", STAYS),
        recipe(C, "2.0.0", {"Startup": "exit 1"}),
    )
    async with device.running():
        await device.deploy({A: "1.0.0", C: "1.0.0"}, failure_policy="DO_NOTHING")
        await device.until(B, "BROKEN")
        result = await device.deploy({A: "1.0.0", C: "2.0.0"}, deadline_s=15.0)

        assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert device.supervisor.health()[C].version == "1.0.0"


async def test_roll_back_when_the_old_version_does_not_start_any_more_then_says_both(device: devices.Device) -> None:
    device.publish(
        recipe(A, "1.0.0", {"Startup": "test ! -e ../../spoiled"}),
        recipe(A, "2.0.0", {"Startup": "touch ../../spoiled; exit 1"}),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "2.0.0"})

        assert result.detailed == "FAILED_UNABLE_TO_ROLLBACK"
        assert "2.0.0 is BROKEN" in result.cause
        assert "The way back failed too: com.example.A 1.0.0 is BROKEN" in result.cause
    assert installed(device) == {A: "1.0.0"}


async def test_roll_back_when_a_component_wrote_meanwhile_with_an_old_stamp_then_its_write_stays(
    device: devices.Device,
) -> None:
    """Acknowledged is acknowledged: the component's clock may be behind the device's."""
    defaults = {"ComponentConfiguration": {"DefaultConfiguration": {"speed": 1, "mode": "a"}}}
    script = {"Startup": "while ! test -e ../../go; do sleep 0.05; done; exit 1"}
    device.publish(recipe(A, "1.0.0", STAYS, **defaults), recipe(A, "2.0.0", script, **defaults))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        wish = document.Wish(version="2.0.0", merge={"speed": 9, "mode": "b"})
        record = device.submit({A: wish})
        await device.until(A, "STARTING")
        write(device, A, "speed", 5, record.document.created_ms)
        (device.places.root / "go").touch()
        await device.end_of(record.id)

    assert setting(device, A, "speed") == 5
    assert setting(device, A, "mode") == "a"


async def test_deploy_when_do_nothing_and_it_fails_then_nothing_is_removed(device: devices.Device) -> None:
    """What was there goes only when the new state is proven (spec/nucleus.md 5.8)."""
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", {"Startup": "exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({B: "1.0.0"}, failure_policy="DO_NOTHING")

        assert result.detailed == "FAILED_ROLLBACK_NOT_REQUESTED"
        assert set(device.supervisor.health()) == {A, B}


async def test_deploy_when_the_document_is_from_the_future_then_its_keys_can_be_written_now(
    device: devices.Device,
) -> None:
    """A device that woke up in 1970, or a service whose clock is ahead."""
    defaults = {"ComponentConfiguration": {"DefaultConfiguration": {"speed": 1}}}
    device.publish(recipe(A, "1.0.0", STAYS, **defaults))
    async with device.running():
        ahead = device.configuration.now() + 86_400_000
        await device.deploy({A: document.Wish(version="1.0.0", merge={"speed": 2})}, created_ms=ahead)
        write(device, A, "speed", 3, device.configuration.now())

        assert setting(device, A, "speed") == 3
        assert device.configuration.now() < ahead


async def test_create_local_when_the_clock_was_set_back_then_not_stale_and_in_force(tmp_path: Path) -> None:
    """A battery that is empty: after a restart it is 1970, and what was written before is in the future."""
    root, defaults = tmp_path / "root", {"ComponentConfiguration": {"DefaultConfiguration": {"speed": 1}}}
    for clock_s, speed in ((1_800_000_000.0, 2), (1000.0, 3)):
        store = configuration_store.ConfigurationStore(root / "config", clock=lambda at=clock_s: at)  # type: ignore[misc]
        device = devices.Device(root, configuration=store)
        device.publish(recipe(A, "1.0.0", STAYS, **defaults))
        request = local.LocalRequest(
            group="turbines",
            add={A: "1.0.0"},
            updates={A: {"MERGE": {"speed": speed}}},
            recipe_directory=str(root / "published"),
        )
        async with device.running():
            mine = await device.deployer.create_local(request, "cli")

            assert (await device.end_of(mine)).status == "SUCCEEDED"
            assert setting(device, A, "speed") == speed
        store.close()


def test_load_when_no_file_name_fits_the_id_then_saved_under_a_digest(tmp_path: Path) -> None:
    store = deployments.DeploymentStore(places.Places(tmp_path))
    for odd in ("..", "a/../../b", "x" * 300, "\N{SNOWMAN}" * 80, "a\0b"):
        found = document.Document(deployment_id=odd, configuration_arn="", group="", created_ms=1)
        store.save(deployments.Record(document=found, source=deployments.LOCAL))

    records, bad = store.load()

    assert (len(records), bad) == (5, [])
    assert not [path for path in tmp_path.iterdir() if path.name != "deployments"]
