"""What happened to other agents: lost links, damaged objects, restored backups, disagreement with the hub, lost lines."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import json
import re
import shutil
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from nucleus.cli import log_tail
from nucleus.core import desired, local, negotiate
from nucleus.core import recipe as recipes
from nucleus.host import logs
from nucleus.store import components, deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe
from tests.nucleus.launch import test_loader as loaders

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 100000"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def test_nucleus_issue_1342_when_the_current_link_is_missing_then_the_nucleus_starts(tmp_path: Path) -> None:
    """The link `current` is gone after a shutdown: the agent cannot start."""
    root = loaders.Root(tmp_path / "root")
    root.directory("init", "exit 7")

    assert root.run() == 7
    assert set(root.runs()) == {"init"}
    assert root.links() == {"current": "init"}


@pytest.mark.parametrize(
    ("links", "runs"),
    [
        ({"current": "gone", "old": "v1"}, "v1"),
        ({"current": "gone", "old": "gone", "new": "gone"}, "init"),
        ({"old": "v1", "new": "gone"}, "v1"),
        ({"current": "v1", "old": "gone", "broken": "gone"}, "v1"),
    ],
)
def test_ostree_issue_2283_when_links_are_out_of_step_then_something_whole_starts(
    tmp_path: Path, links: dict[str, str], runs: str
) -> None:
    """Boot links out of sync: machines do not boot."""
    root = loaders.Root(tmp_path / "root")
    for name in ("init", "v1"):
        root.directory(name, "exit 7")
    root.link(**links)

    assert root.run() == 7
    assert root.runs()[0] == runs


def with_artifact(version: str, content: str, folder: Path) -> dict[str, object]:
    """A recipe whose script needs word.txt, which lies below `folder` as local deployments want it."""
    place = folder / A / version
    place.mkdir(parents=True)
    (place / "word.txt").write_text(content)
    made = recipe(A, version, {"Run": "cat {artifacts:path}/word.txt > seen && exec sleep 100000"})
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    made["Manifests"][0]["Artifacts"] = [{"URI": "s3://bucket/word.txt", "Digest": digest, "Algorithm": "SHA-256"}]
    return made


async def test_ostree_issue_1778_when_an_object_is_damaged_then_nothing_is_switched_to_it(
    device: devices.Device, tmp_path: Path
) -> None:
    """Corrupt objects after a switch."""
    folder = tmp_path / "artifacts"
    device.publish(with_artifact("1.0.0", "one", folder), with_artifact("2.0.0", "two", folder))
    device.store.take_local(device.places.root / "published", folder)
    async with device.running():
        await device.deploy({A: "1.0.0"})
        device.store.take_local(device.places.root / "published", folder)
        await device.deploy({A: "2.0.0"})
        (device.places.artifacts(A, "1.0.0") / "word.txt").write_text("0ne")
        refused = await device.deploy({A: "1.0.0"})
        running = device.supervisor.health()[A]
        device.store.take_local(device.places.root / "published", folder)
        healed = await device.deploy({A: "1.0.0"})

    assert refused.detailed == "FAILED_NO_STATE_CHANGE"
    assert "word.txt" in refused.cause
    assert (running.version, running.state.name) == ("2.0.0", "RUNNING")
    assert healed.status == "SUCCEEDED"


async def test_supervisor_pull_6821_when_a_backup_is_restored_then_nothing_is_rolled_back(tmp_path: Path) -> None:
    """Restore of a backup triggers a false rollback."""
    root, backup = tmp_path / "root", tmp_path / "backup"
    first = devices.Device(root)
    first.publish(recipe(A, "1.0.0", STAYS), recipe(A, "2.0.0", STAYS))
    async with first.running():
        await first.deploy({A: "1.0.0"})
    shutil.copytree(root, backup, symlinks=True)
    second = devices.Device(root)
    async with second.running():
        await second.deploy({A: "2.0.0"})
    shutil.rmtree(root)
    shutil.copytree(backup, root, symlinks=True)

    for _ in range(4):  # more launches than a loop of crashes is given
        restored = devices.Device(root)
        async with restored.running():
            await restored.until(A, "RUNNING")
            assert restored.supervisor.health()[A].version == "1.0.0"
            assert restored.ended.empty()
    async with devices.Device(root).running() as again:
        assert (await again.deploy({A: "2.0.0"})).status == "SUCCEEDED"


class Hub:
    """A source of deployments that can be away."""

    def __init__(self) -> None:
        self.online = False
        self.knows: dict[str, str] = {}
        self._news = asyncio.Event()

    async def report(self, record: deployments.Record, state: str, details: dict[str, str], /) -> bool:
        if self.online:
            self.knows[record.id] = state
            self._news.set()
        return self.online

    async def until(self, deployment_id: str, state: str) -> None:
        async with asyncio.timeout(20):
            while self.knows.get(deployment_id) != state:
                self._news.clear()
                await self._news.wait()


async def test_anax_issue_3703_when_both_went_on_while_apart_then_they_agree_again(device: devices.Device) -> None:
    """After an offline hour agent and hub disagree for ever."""
    hub = Hub()
    device.deployer.add_source(deployments.JOB, hub)
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", {"Startup": "sleep 1000"}))
    async with device.running():
        done = device.submit({A: "1.0.0"})
        assert (await device.end_of(done.id)).status == "SUCCEEDED"
        unwanted = device.submit({A: "1.0.0", B: "1.0.0"})
        await device.until(B, "STARTING")
        assert hub.knows == {}

        hub.online = True
        device.deployer.keep_jobs(frozenset({done.carrier}))  # the hub has cancelled the other one meanwhile
        device.deployer.wake_reports()
        ended = await device.end_of(unwanted.id)
        await hub.until(done.id, "SUCCEEDED")

    assert ended.status == "CANCELED"
    assert desired.roots(device.configuration.tree) == {devices.GROUP: {A: "1.0.0"}}


async def test_iotedge_issue_4545_when_much_has_happened_then_memory_has_not_grown(device: devices.Device) -> None:
    """Memory climbs for days on a small board: here no deployment and no restart leaves anything behind."""
    device.publish(recipe(A, "1.0.0", {"Run": "true"}), recipe(A, "2.0.0", {"Run": "true"}))

    async def happen(times: int) -> int:
        for number in range(times):
            await device.deploy({A: f"{number % 2 + 1}.0.0"})
            device.reports.seen.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async with device.running():
        tracemalloc.start()
        try:
            before = await happen(deployments.KEEP_FINISHED + 10)
            after = await happen(40)
        finally:
            tracemalloc.stop()

    assert after - before < 40 * 2_000  # a record of a deployment alone is larger


class Swallowing(devices.Plane):
    """A network that takes every question and gives no answer."""

    async def thing_groups(self) -> set[str]:
        return await asyncio.Future()

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        assert ask.name != A, "asked for what the deployment itself brings"
        return await asyncio.Future()


async def test_nucleus_pull_810_when_local_and_the_network_swallows_everything_then_it_ends(tmp_path: Path) -> None:
    """ "Local" deployments still call the cloud, offline retry for ever (also pull 1049)."""
    device = devices.Device(tmp_path / "root", plane=Swallowing(set()), local_once_s=0.05)
    needs = {"ComponentDependencies": {B: {"VersionRequirement": "*", "DependencyType": "HARD"}}}
    device.publish(recipe(A, "1.0.0", STAYS, **needs), recipe(B, "1.0.0", STAYS))
    request = local.LocalRequest(add={A: "1.0.0"}, recipe_directory=str(device.places.root / "published"))
    async with device.running():
        ended = await device.end_of(await device.deployer.create_local(request, "cli"))
        await device.until(B, "RUNNING")

    assert ended.status == "SUCCEEDED"


def candidate(made: dict[str, object]) -> tuple[negotiate.Candidate, recipes.Artifact]:
    read = recipes.read(json.dumps(made).encode(), "test")
    return negotiate.Candidate(name=read.name, version=read.version, recipe=read), read.manifests[0].artifacts[0]


def test_supervisor_issue_1513_when_unpacking_was_cut_short_then_every_file_is_there_in_the_end(
    device: devices.Device,
) -> None:
    """Delta reported as applied although large files are missing: what is half done is never taken as done."""
    made = recipe(A, "1.0.0", STAYS)
    made["Manifests"][0]["Artifacts"] = [{"URI": "s3://bucket/all.zip", "Unarchive": "ZIP"}]
    one, artifact = candidate(made)
    path = device.store.artifact_path(one, artifact)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small.txt", "s")
        archive.writestr("large.bin", b"l" * 3 * components.CHUNK_BYTES)
    target = device.places.unarchived(A, "1.0.0") / "all"
    target.mkdir(parents=True)
    (target / "small.txt").write_text("s")  # the nucleus was killed before the large one

    device.store.finish(one, artifact)

    assert (target / "large.bin").stat().st_size == 3 * components.CHUNK_BYTES


async def test_supervisor_issue_1065_when_an_artifact_is_missing_then_nothing_of_the_component_runs(
    device: devices.Device, tmp_path: Path
) -> None:
    """A container started without its image."""
    device.publish(with_artifact("1.0.0", "one", tmp_path / "artifacts"))
    async with device.running():
        result = await device.deploy({A: "1.0.0"})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert "word.txt" in result.cause
    assert A not in device.supervisor.health()
    assert not device.places.work(A).exists()


async def test_nucleus_issue_1023_when_a_component_writes_much_then_every_line_is_kept(device: devices.Device) -> None:
    """Only a part of the logs arrives: here the last line of a script that ends at once is there, too."""
    device.publish(recipe(A, "1.0.0", {"Run": "seq -f 'line %.0f.' 1 20000"}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.until(A, "FINISHED")
    written = "".join(path.read_text() for path in device.places.logs.glob(f"{A}*.log"))

    kept = {int(number) for number in re.findall(r"line (\d+)\.", written)}
    assert set(range(1, 20001)) - kept == set()


def test_nucleus_issue_1023_when_the_file_is_rotated_often_between_two_looks_then_no_line_is_missed(
    tmp_path: Path,
) -> None:
    """The follower of a log reads rotated files to their ends, however many there were meanwhile."""
    path = tmp_path / "a.log"
    file = logs.RotatedFile(path, logs.Style(file_bytes=200))
    file.write(b"0\n")
    tail = log_tail.Tail(path, 0)
    seen: list[str] = []
    for number in range(1, 500):
        file.write(f"{number}\n".encode())
        if number % 170 == 0:
            seen += tail.lines()
    while fresh := tail.lines():
        seen += fresh
    tail.close()
    file.close()

    assert seen == [str(number) for number in range(500)]
