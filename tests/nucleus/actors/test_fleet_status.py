"""What the device tells of itself, when, and what it must not tell (spec/nucleus.md 6.1)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nucleus.actors import fleet_status
from nucleus.core import document, errors, lifecycle, safe_mode, status
from nucleus.core.lifecycle import State
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments

A, B = "com.example.A", "com.example.B"


class Cloud:
    connected = True

    def __init__(self) -> None:
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def publish(self, topic: str, payload: bytes, qos: int = 1, /) -> None:
        assert topic == "$aws/things/t1/greengrassv2/health/json"
        self.told.put_nowait(json.loads(payload))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return await self.told.get()


class Full(configuration_store.ConfigurationStore):
    def commit(self, changes: Any) -> None:
        raise errors.NucleusError("DISK_SPACE_CRITICAL", "cannot write: disk full")


class World:
    """One device; `become` is what the supervisor does when a component changes."""

    def __init__(self, folder: Path, store: configuration_store.ConfigurationStore | None = None) -> None:
        self.cloud = Cloud()
        self.health: dict[str, lifecycle.Health] = {}
        self.store = store or configuration_store.ConfigurationStore(folder / "config")
        self.store.open()
        self.fleet = fleet_status.FleetStatus(
            self.cloud,
            thing="t1",
            platform={"os": "linux", "architecture": "amd64"},
            store=self.store,
            health=lambda: dict(self.health),
            log=logs.Log("test", directory=folder),
            spacing_s=0.05,
        )

    def become(self, name: str, state: State, waiting_for: str = "") -> None:
        rests = state in (State.RUNNING, State.FINISHED, State.BROKEN)
        self.health[name] = lifecycle.Health(
            name=name,
            version="1.0.0",
            state=state,
            settled=rests,
            status_code="RUN_ERROR" if state in (State.ERRORED, State.BROKEN) else "NONE",
            reason="it broke" if state in (State.ERRORED, State.BROKEN) else "",
            since_at=0.0,
            generation=1,
            failures=0,
            pids=(),
            waiting_for=waiting_for,
        )
        self.fleet.component_changed(self.health[name])

    def end(self, number: int = 1, source: str = deployments.JOB) -> None:
        found = document.Document(deployment_id=f"d{number}", configuration_arn="arn", group="g", created_ms=1)
        self.fleet.deployment_ended(
            deployments.Record(document=found, source=source, result=status.success(), queued_ms=1)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.fleet.run())
            self.fleet.connected()
            yield self
            task.cancel()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def states(message: dict[str, Any]) -> dict[str, str]:
    return {one["componentName"]: one["status"] for one in message["components"]}


async def test_launch_when_components_still_start_then_told_again_once_they_rest(world: World) -> None:
    """Without the second message the cloud would show STARTING until the next day."""
    world.become(A, State.STARTING)
    async with world.running():
        first = await world.cloud.next()
        world.become(A, State.RUNNING)
        second = await world.cloud.next()

    assert (first["trigger"], first["messageType"], states(first)) == ("NUCLEUS_LAUNCH", "COMPLETE", {A: "STARTING"})
    assert (second["messageType"], states(second)) == ("PARTIAL", {A: "RUNNING"})
    assert second["sequenceNumber"] == first["sequenceNumber"] + 1


async def test_error_when_others_still_move_then_told_at_once_and_the_recovery_once(world: World) -> None:
    async with world.running():
        await world.cloud.next()
        world.become(A, State.STARTING)
        world.become(B, State.ERRORED)
        bad = await world.cloud.next()
        world.become(B, State.STARTING)
        world.become(B, State.RUNNING)
        world.become(A, State.RUNNING)
        recovered = await world.cloud.next()

    assert states(bad) == {B: "ERRORED"}
    assert bad["components"][0]["componentStatusDetails"] == {"statusCodes": ["RUN_ERROR"], "statusReason": "it broke"}
    assert states(recovered) == {A: "RUNNING", B: "RUNNING"}
    assert world.cloud.told.empty()


async def test_error_when_another_waits_for_the_broken_one_then_the_recovery_is_not_held_up(world: World) -> None:
    async with world.running():
        await world.cloud.next()
        world.become(B, State.INSTALLED, "hard dependency com.example.A (BROKEN)")
        world.become(A, State.BROKEN)
        told = await world.cloud.next()

    assert states(told) == {A: "BROKEN", B: "INSTALLED"}
    assert told["overallDeviceStatus"] == "UNHEALTHY"


async def test_removed_when_it_was_broken_before_then_never_told_again(world: World) -> None:
    """A message that was held back must not bring a removed component back into the cloud's list."""
    async with world.running():
        await world.cloud.next()
        world.become(A, State.BROKEN)
        await world.cloud.next()
        world.become(B, State.BROKEN)  # held back by the spacing
        del world.health[B]
        world.end()
        ended = await world.cloud.next()
        world.become(A, State.RUNNING)
        last = await world.cloud.next()

    assert (ended["trigger"], ended["messageType"], set(states(ended))) == ("THING_GROUP_DEPLOYMENT", "COMPLETE", {A})
    assert states(last) == {A: "RUNNING"}


async def test_offline_when_much_happens_then_one_complete_message_and_the_results_after_it(world: World) -> None:
    async with world.running():
        await world.cloud.next()
        world.cloud.connected = False
        for _ in range(50):
            world.become(A, State.ERRORED)
            world.become(A, State.STARTING)
        world.become(A, State.RUNNING)
        for number in range(3):
            world.end(number, deployments.LOCAL)
        await asyncio.sleep(0)
        assert world.cloud.told.empty()
        world.cloud.connected = True
        world.fleet.connected()
        told = [await world.cloud.next() for _ in range(3)]

    assert [one["trigger"] for one in told] == ["LOCAL_DEPLOYMENT"] * 3
    assert [one["deploymentInformation"]["deploymentId"] for one in told] == ["d0", "d1", "d2"]
    assert states(told[-1]) == {A: "RUNNING"}
    assert world.cloud.told.empty()


async def test_reconnect_when_again_and_again_then_told_only_when_something_changed(world: World) -> None:
    async with world.running():
        await world.cloud.next()
        for _ in range(20):
            world.fleet.connected()
            await asyncio.sleep(0)
        assert world.cloud.told.empty()
        world.cloud.connected = False
        world.become(A, State.BROKEN)
        await asyncio.sleep(0)
        world.cloud.connected = True
        world.fleet.connected()
        told = await world.cloud.next()

    assert (told["trigger"], states(told)) == ("RECONNECT", {A: "BROKEN"})


async def test_sequence_when_restarted_then_goes_on(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        world = World(tmp_path)
        async with world.running():
            numbers.append((await world.cloud.next())["sequenceNumber"])
        world.store.close()

    assert numbers == [1, 2, 3]


async def test_sequence_when_the_disk_is_full_then_counts_on_in_memory(tmp_path: Path) -> None:
    world = World(tmp_path, Full(tmp_path / "config"))
    async with world.running():
        first = await world.cloud.next()
        world.end()
        second = await world.cloud.next()

    assert (first["sequenceNumber"], second["sequenceNumber"]) == (1, 2)


async def test_safe_mode_when_entered_and_left_then_every_message_says_so_until_it_is_left(world: World) -> None:
    world.store.commit(safe_mode.entered("the way back looped", world.store.now()))
    async with world.running():
        first = await world.cloud.next()
        world.store.commit(safe_mode.left(world.store.now()))
        world.end()
        last = await world.cloud.next()

    assert first["marram"] == {"mode": "SAFE_MODE", "reason": "the way back looped"}
    assert first["overallDeviceStatus"] == "UNHEALTHY"
    assert "marram" not in last
    assert last["overallDeviceStatus"] == "HEALTHY"
