"""Synchronisation against a cloud in memory that answers as the service does, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleus.actors import shadow_sync, shadows
from nucleus.core import shadow, shadow_settings
from nucleus.core.shadow_sync import Direction
from tests.nucleus.shadow_cloud import QUICK, REF, Cloud, Device, running


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


async def test_sync_when_either_side_changes_then_the_other_follows_with_one_question(
    tmp_path: Path, cloud: Cloud
) -> None:
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"a": 1}, desired={"b": 1})
        await device.rests()
        assert cloud.state == {"reported": {"a": 1}, "desired": {"b": 1}}
        cloud.asked.clear()

        await device.update(reported={"a": 2})
        await device.rests()
        assert cloud.asked[0][1]["version"] == 1
        assert cloud.verbs == ["update"]

        cloud.edit(desired={"b": None, "c": 1})
        await device.rests()
        assert await device.state() == {"reported": {"a": 2}, "desired": {"c": 1}} == cloud.state
        assert cloud.verbs == ["update", "get"]


async def test_sync_when_somebody_changes_the_shadow_before_every_update_then_it_pauses_and_goes_on_later(
    tmp_path: Path, cloud: Cloud
) -> None:
    def meddle(verb: str) -> int:
        if verb == "update":
            cloud.fault = lambda _verb: 0
            cloud.edit(desired={"n": cloud.held.version})
            cloud.fault = meddle
        return 0

    async with running(tmp_path, cloud) as device:
        cloud.edit(desired={"n": 0})
        await device.rests()
        cloud.asked.clear()
        cloud.fault = meddle
        await device.update(reported={"a": 1})
        await device.rests()
        assert len(cloud.asked) <= 3 * shadow_sync.ATTEMPTS

        cloud.fault = lambda _verb: 0
        device.later(200)
        await device.rests()
        assert cloud.state == await device.state()


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_sync_when_the_cloud_is_busy_then_it_waits_longer_each_time(
    tmp_path: Path, cloud: Cloud, code: int
) -> None:
    cloud.fault = lambda _verb: code
    async with running(tmp_path, cloud) as device:
        assert cloud.verbs == ["get"]
        for pause_s in (1.0, 2.0, 4.0):
            device.later(pause_s)
            await device.rests()
        assert cloud.verbs == ["get"] * 4

        cloud.fault = lambda _verb: 0
        await device.update(reported={"a": 1})
        device.later(10)
        await device.rests()
        assert cloud.state == {"reported": {"a": 1}}


async def test_sync_when_the_cloud_refuses_a_document_then_it_is_told_once_and_the_next_change_is_tried(
    tmp_path: Path, cloud: Cloud
) -> None:
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"a": "x" * 20_000})
        await device.rests()
        device.later(1000)
        await device.rests()
        assert cloud.verbs.count("update") == 1
        assert device.log.names().count("shadow.not_synchronised") == 1

        await device.update(reported={"a": "x"})
        await device.rests()
        assert cloud.state == {"reported": {"a": "x"}}


async def test_sync_when_the_policy_forbids_the_topics_then_nothing_is_published_until_the_next_connection(
    tmp_path: Path, cloud: Cloud
) -> None:
    cloud.forbidden = True
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"a": 1})
        await device.rests()
        assert not cloud.asked
        assert "shadow.not_synchronised" in device.log.names()

        cloud.forbidden = False
        device.sync.connected()
        await device.rests()
        assert cloud.state == {"reported": {"a": 1}}


async def test_sync_when_the_broker_does_not_take_a_publication_then_refused_or_later_by_its_reason(
    tmp_path: Path, cloud: Cloud
) -> None:
    cloud.reason = 0x87
    async with running(tmp_path, cloud) as device:
        assert device.log.names().count("shadow.not_synchronised") == 1
        cloud.reason = 0x97
        await device.update(reported={"a": 1})
        await device.rests()
        assert device.log.names().count("shadow.synchronised_later") == 1

        cloud.reason = 0
        device.later(10)
        await device.rests()
        assert cloud.state == {"reported": {"a": 1}}


async def test_sync_when_offline_for_months_then_one_exchange_tells_the_last_state(
    tmp_path: Path, cloud: Cloud
) -> None:
    async with running(tmp_path, cloud) as device:
        cloud.go(False)
        for number in range(200):
            await device.update(reported={"n": number})
        cloud.edit(desired={"a": 1})
        await device.rests()
        assert cloud.verbs == ["get"]

        device.later(90 * 86_400)
        cloud.go(True)
        device.sync.connected()
        await device.rests()

        assert cloud.state == {"reported": {"n": 199}, "desired": {"a": 1}} == await device.state()
        assert cloud.verbs == ["get", "get", "update"]


async def test_sync_when_periodic_then_only_at_its_times_and_a_live_change_of_strategy_holds(
    tmp_path: Path, cloud: Cloud
) -> None:
    periodic = shadow_settings.Strategy(300)
    used = shadow_settings.Settings(synchronized=frozenset({REF}), strategy=periodic)
    async with running(tmp_path, cloud, used) as device:
        while "get" not in cloud.verbs:
            await device.rests()
        await device.rests()
        for number in range(5):
            await device.update(reported={"n": number})
        await device.rests()
        assert not cloud.exists

        device.later(300)
        while cloud.state != {"reported": {"n": 4}}:
            await device.rests()

        await device.update(reported={"n": 5})
        await device.rests()
        assert cloud.state == {"reported": {"n": 4}}
        device.used = QUICK
        device.sync.wake()
        await device.rests()
        assert cloud.state == {"reported": {"n": 5}}


async def test_sync_when_one_way_then_the_other_sides_edits_wait_and_are_overwritten(
    tmp_path: Path, cloud: Cloud
) -> None:
    def way(direction: Direction) -> shadow_settings.Settings:
        return shadow_settings.Settings(frozenset({REF}), direction, total_rate=1e6, thing_rate=1e6)

    async with running(tmp_path, cloud, way(Direction.UP)) as device:
        await device.update(reported={"a": 1})
        await device.rests()
        cloud.edit(desired={"b": 1})
        await device.rests()
        assert cloud.state == {"reported": {"a": 1}, "desired": {"b": 1}}
        await device.update(reported={"a": 2})
        await device.rests()
        assert cloud.state == {"reported": {"a": 2}} == await device.state()

        device.used = way(Direction.DOWN)
        device.sync.wake()
        await device.rests()
        await device.update(reported={"a": 3})
        await device.rests()
        assert cloud.state == {"reported": {"a": 2}}
        cloud.edit(desired={"c": 1})
        await device.rests()
        assert await device.state() == {"reported": {"a": 2}, "desired": {"c": 1}}


async def test_sync_when_a_shadow_is_no_longer_configured_then_it_is_left_alone_and_taken_up_again(
    tmp_path: Path, cloud: Cloud
) -> None:
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"a": 1, "b": 1})
        await device.rests()
        device.used = None
        device.sync.wake()
        await device.rests()
        assert not cloud._sinks
        cloud.edit(reported={"b": None})
        device.used = QUICK
        await device.update(reported={"a": 2})
        device.sync.wake()
        await device.rests()

        assert cloud.state == {"reported": {"a": 2}} == await device.state()


async def test_sync_when_the_connection_goes_while_waiting_then_it_does_not_wait_for_the_time_limit(
    tmp_path: Path, cloud: Cloud
) -> None:
    cloud.fault = lambda _verb: None
    device = Device(tmp_path, cloud, QUICK, answer_s=1000)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(device.sync.run())
        while not cloud.asked:
            await device.shadows.look(REF)
        cloud.go(False)
        while "shadow.synchronised_later" not in device.log.names():
            await device.shadows.look(REF)
        task.cancel()


_values = st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 3), min_size=1, max_size=2)
_steps = st.lists(
    st.tuples(st.sampled_from(["here", "there"]), st.sampled_from(["desired", "reported"]), _values)
    | st.sampled_from(["delete here", "delete there", "down", "up", "pause", "restart"]),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_sync_when_edits_deletions_and_interruptions_alternate_then_both_sides_become_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("play"), steps))


async def _play(folder: Path, steps: list[Any]) -> None:
    cloud = Cloud()
    rest: list[Any] = list(steps)
    while True:
        async with running(folder, cloud) as device:
            while rest and (step := rest.pop(0)) != "restart":
                await _step(device, cloud, step)
            if not rest:
                cloud.go(True)
                device.sync.connected()
                device.later(1000)
                await device.rests()
                here = await device.state()
                assert (here is None) == (cloud.state is None)
                assert here is None or shadow.same(here, cloud.state)
                return


async def _step(device: Device, cloud: Cloud, step: Any) -> None:
    match step:
        case ("here", section, values):
            await device.update(**{section: values})
        case ("there", section, values):
            cloud.edit(**{section: values})
        case "delete here":
            with contextlib.suppress(shadows.Rejected):
                await device.delete()
        case "delete there":
            if cloud.exists:
                cloud.delete()
        case "down":
            cloud.go(False)
        case "up":
            cloud.go(True)
            device.sync.connected()
        case "pause":
            await device.rests()
