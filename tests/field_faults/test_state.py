"""Part B: rollback or power loss damages the agent. Part D: disk and memory leak away."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from nucleus.core import configuration, desired, document, errors, negotiate
from nucleus.core import recipe as recipes
from nucleus.host import files, journal
from nucleus.store import configuration as configuration_store
from nucleus.uplink import spool
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 100000"}
NUCLEUS = ("services", "aws.greengrass.Nucleus", "configuration", "iotDataEndpoint")


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def keep_endpoint(device: devices.Device) -> None:
    device.configuration.commit((configuration.Change(NUCLEUS, "gg.example.com", 1, "file"),))


async def test_nucleus_issue_1635_when_the_first_deployment_fails_then_the_nucleus_keeps_all_of_its_own(
    device: devices.Device,
) -> None:
    """A failed first deployment: the rollback deletes the nucleus and its service loader."""
    keep_endpoint(device)
    device.publish(recipe(A, "1.0.0", {"Run": "exit 1"}))
    async with device.running():
        result = await device.deploy({A: "1.0.0"}, watch_s=20.0)

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert configuration.get(device.configuration.tree, NUCLEUS) == "gg.example.com"
    assert desired.installed(device.configuration.tree) == {}


async def test_nucleus_pull_1824_when_a_deployment_fails_then_groups_are_still_known(device: devices.Device) -> None:
    """A rollback drops built-in services from the graph; the next restart loses group state."""
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Run": "exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.deploy({A: "2.0.0"}, watch_s=20.0)

    again = devices.Device(device.places.root)
    assert desired.roots(again.configuration.tree) == {devices.GROUP: {A: "1.0.0"}}


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_nucleus_pull_933_when_power_is_lost_in_the_log_then_the_tail_is_cut_and_told(tmp_path: Path, cut: int) -> None:
    """The transaction log was corrupt after a power outage; the remedy was a bootstrap copy."""
    store = configuration_store.ConfigurationStore(tmp_path)
    store.open()
    for number in range(5):
        store.commit((configuration.Change(("services", "A", "configuration", "n"), number, number + 1, "nucleus"),))
    store.close()
    (log,) = [path for path in tmp_path.iterdir() if path.stat().st_size]
    os.truncate(log, log.stat().st_size - cut)

    again = configuration_store.ConfigurationStore(tmp_path)
    told = again.open()

    assert told
    assert configuration.get(again.tree, ("services", "A", "configuration", "n")) == 3
    again.close()


def test_nucleus_pull_1410_when_killed_during_compaction_then_the_old_log_counts(tmp_path: Path) -> None:
    """A kill during log truncation left no configuration file, and the nucleus started empty."""
    path = tmp_path / "log"
    kept, _, _ = journal.Journal.open(path)
    kept.append(b'{"a":1}')
    kept.close()
    (tmp_path / ".log.new").write_bytes(b"half of a new")  # what the kill leaves behind

    again, records, _ = journal.Journal.open(path)

    assert records == [b'{"a":1}']
    again.close()


async def test_nucleus_issue_1168_when_power_cycled_then_certificates_and_thing_name_stay(tmp_path: Path) -> None:
    for _ in range(3):
        device = devices.Device(tmp_path / "root")
        keep_endpoint(device)
        device.publish(recipe(A, "1.0.0", {"Startup": "sleep 1000"}))
        async with device.running():
            if not (tmp_path / "submitted").exists():
                device.submit({A: "1.0.0"})
                (tmp_path / "submitted").touch()
            await device.until(A, "STARTING")

    last = devices.Device(tmp_path / "root")
    assert configuration.get(last.configuration.tree, NUCLEUS) == "gg.example.com"


async def test_nucleus_pull_1497_when_a_record_is_damaged_then_the_device_starts_and_says_so(tmp_path: Path) -> None:
    """A bootstrap failure and damaged metadata made an endless boot loop ("bricked")."""
    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", STAYS))
    async with first.running():
        await first.deploy({A: "1.0.0"})
    for record in first.places.deployments.glob("*/record.json"):
        record.write_bytes(b'{"document": ')

    second = devices.Device(tmp_path / "root")
    async with second.running():
        await second.until(A, "RUNNING")

    assert "deployment.record_lost" in (second.places.logs / "greengrass.log").read_text()


async def test_rauc_issue_459_when_what_was_written_is_not_what_was_sent_then_it_is_fetched_again(
    tmp_path: Path,
) -> None:
    """No check that what was written is what was sent."""
    device = devices.Device(tmp_path / "root")
    text = recipe(A, "1.0.0", {"Run": "true"})
    digest = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # of "hello"
    text["Manifests"][0]["Artifacts"] = [{"URI": "greengrass:x/a.txt", "Digest": digest, "Algorithm": "SHA-256"}]
    read = recipes.read(json.dumps(text).encode(), "test")
    candidate = negotiate.Candidate(A, "1.0.0", read)
    path = device.store.artifact_path(candidate, read.manifests[0].artifacts[0])
    path.parent.mkdir(parents=True)

    path.write_bytes(b"hello")
    assert device.store.is_present(candidate, read.manifests[0].artifacts[0])
    path.write_bytes(b"hellO")
    assert not device.store.is_present(candidate, read.manifests[0].artifacts[0])


async def test_iotedge_issue_1003_when_versions_follow_each_other_then_old_ones_leave_the_disk(
    device: devices.Device,
) -> None:
    """Old images fill the card, and the device dies in the field."""
    versions = [f"1.0.{number}" for number in range(6)]
    device.publish(*(recipe(A, version, {"Run": "true"}) for version in versions))
    async with device.running():
        for version in versions:
            await device.deploy({A: version})
    assert [str(one) for one in device.store.versions(A)] == ["1.0.5", "1.0.4"]


def test_iotedge_issue_6164_when_offline_for_months_then_the_spool_stays_within_its_bound(
    device: devices.Device,
) -> None:
    """The message store fills the disk, and the hub stops."""

    async def publish() -> int:
        kept = spool.Spool(device.log, max_bytes=100_000)
        refused = 0
        for number in range(1000):
            try:
                kept.put(spool.Message(topic=f"t/{number}", payload=bytes(1000), qos=1))
            except errors.NucleusError:
                refused += 1
        assert len(kept) <= 100
        return refused

    assert asyncio.run(publish()) >= 900


def test_supervisor_issue_674_when_the_disk_is_low_then_the_download_is_not_begun(device: devices.Device) -> None:
    """The supervisor dies on low disk; users ask for a check before."""
    with pytest.raises(errors.NucleusError, match="free some space and deploy again") as caught:
        device.store.check_space("a.bin of A 1.0.0", files.free_bytes(device.places.root))

    assert caught.value.code == "DISK_SPACE_CRITICAL"


async def test_anax_issue_3346_when_an_upgrade_fails_then_it_is_not_tried_for_ever(device: devices.Device) -> None:
    """An agent upgrade fails, rolls back, tries again, for ever."""
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", {"Startup": "echo try >> ../tries; exit 1"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        failed = device.submit({A: document.Wish(version="2.0.0")})
        assert (await device.end_of(failed.id)).status == "FAILED"
        tries = (device.places.root / "work" / "tries").read_text()
        device.deployer.submit(failed)  # delivered again, because the cloud has not seen the report
        assert (await device.deploy({A: "1.0.0"})).status == "SUCCEEDED"

    assert (device.places.root / "work" / "tries").read_text() == tries
