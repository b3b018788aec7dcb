"""A cloud that answers late or in part: what it has told is not asked again, and local work does not wait for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleus.core import local, negotiate
from nucleus.core import recipe as recipes
from nucleus.store import deployments
from nucleus.uplink import dataplane
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B, C = "com.example.A", "com.example.B", "com.example.C"
STAYS = {"Run": "exec sleep 1000"}


class Counting(devices.Plane):
    """Resolves to the recipes it has; without one the network is down. `asked` are the names of all questions."""

    def __init__(self, *known: dict[str, Any], groups: set[str] | None = None) -> None:
        super().__init__(groups if groups is not None else {"turbines"})
        self.known = {str(one["ComponentName"]): one for one in known}
        self.asked: list[str] = []

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        self.asked.append(ask.name)
        found = self.known.get(ask.name)
        if found is None:
            raise dataplane.Unavailable("NETWORK_ERROR", "no answer")
        read = recipes.read(json.dumps(found).encode(), "the cloud")
        return negotiate.Candidate(ask.name, read.version, read, "arn:aws:greengrass:us-east-1:1:components:x")


def needs(name: str) -> dict[str, Any]:
    return {"ComponentDependencies": {name: {"VersionRequirement": "^1.0.0"}}}


async def test_restart_when_some_answers_are_there_then_only_the_others_are_asked_for(tmp_path: Path) -> None:
    known = (recipe(A, "1.0.0", STAYS, **needs(B)), recipe(B, "1.0.0", STAYS, **needs(C)), recipe(C, "1.0.0", STAYS))
    before, after = Counting(*known[:2]), Counting(*known)
    device = devices.Device(tmp_path / "root", plane=before)
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.reports.until_waiting(f"the cloud to resolve {C}")
    again = devices.Device(tmp_path / "root", plane=after)
    async with again.running():
        result = await again.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert before.asked[:3] == [A, B, C]
    assert after.asked == [C]


async def test_restart_when_the_stored_recipe_is_gone_then_asked_for_again(tmp_path: Path) -> None:
    known = (recipe(A, "1.0.0", STAYS, **needs(B)), recipe(B, "1.0.0", STAYS))
    device = devices.Device(tmp_path / "root", plane=Counting(known[0]))
    async with device.running():
        record = device.submit({A: "1.0.0"})
        await device.reports.until_waiting(f"the cloud to resolve {B}")
    device.places.recipe(A, "1.0.0").unlink()
    after = Counting(*known)
    again = devices.Device(tmp_path / "root", plane=after)
    async with again.running():
        assert (await again.end_of(record.id)).status == "SUCCEEDED"

    assert after.asked == [A, B]


async def test_local_deployment_when_a_cloud_one_waits_for_the_network_then_it_goes_first(tmp_path: Path) -> None:
    plane = Counting(recipe(A, "1.0.0", STAYS, **needs(B)))
    device = devices.Device(tmp_path / "root", plane=plane, local_once_s=0.1)
    async with device.running():
        waits = device.submit({A: "1.0.0"})
        await device.reports.until_waiting(f"the cloud to resolve {B}")
        device.publish(recipe(C, "1.0.0", STAYS))
        asked = local.LocalRequest(add={C: "1.0.0"}, recipe_directory=str(tmp_path / "root" / "published"))
        results = [await device.end_of(await device.deployer.create_local(asked, "test")) for _ in range(2)]
        plane.known[B] = recipe(B, "1.0.0", STAYS)
        late = await device.end_of(waits.id)

        assert [one.status for one in (*results, late)] == ["SUCCEEDED"] * 3
        assert set(device.supervisor.health()) == {A, B, C}
    assert plane.asked.count(A) == 1  # what had been told before is not asked again


async def test_local_deployment_when_the_cloud_one_has_changed_something_then_it_waits_for_its_end(
    tmp_path: Path,
) -> None:
    known = recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.02; done"})
    device = devices.Device(tmp_path / "root", plane=Counting(known))
    device.publish(recipe(C, "1.0.0", STAYS))
    async with device.running():
        first = device.submit({A: "1.0.0"})
        await device.until(A, "STARTING")
        asked = local.LocalRequest(add={C: "1.0.0"}, recipe_directory=str(tmp_path / "root" / "published"))
        second = await device.deployer.create_local(asked, "test")
        (device.places.root / "go").touch()
        ends = [(await device.ended.get()).id for _ in range(2)]

    assert ends == [first.id, second]


async def test_overtaken_deployment_when_cancelled_meanwhile_then_it_does_not_come_back(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root", plane=Counting())
    device.publish(recipe(C, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.02; done"}))
    async with device.running():
        waits = device.submit({A: "1.0.0"})
        await device.reports.until_waiting(f"the cloud to resolve {A}")
        asked = local.LocalRequest(add={C: "1.0.0"}, recipe_directory=str(tmp_path / "root" / "published"))
        first = await device.deployer.create_local(asked, "test")
        await device.until(C, "STARTING")
        device.deployer.cancel(deployments.JOB, waits.carrier)
        cancelled = await device.end_of(waits.id)
        (device.places.root / "go").touch()
        done = await device.end_of(first)

    assert (cancelled.status, done.status) == ("CANCELED", "SUCCEEDED")


async def test_overtaken_deployment_when_its_deadline_passes_then_it_fails_by_it(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root", plane=Counting())
    device.publish(recipe(C, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.02; done"}))
    async with device.running():
        waits = device.submit({A: "1.0.0"}, deadline_s=2.0)
        await device.reports.until_waiting(f"the cloud to resolve {A}")
        asked = local.LocalRequest(add={C: "1.0.0"}, recipe_directory=str(tmp_path / "root" / "published"))
        await device.deployer.create_local(asked, "test")
        await device.until(C, "STARTING")
        (device.places.root / "go").touch()
        result = await device.end_of(waits.id)

    assert (result.status, result.stack[-1]) == ("FAILED", "NETWORK_ERROR")
