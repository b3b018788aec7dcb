"""Faults of shadow synchronisation in the field, impossible here (spec/nucleus.md 12: S/issues/98, 116, 121, 129, 175)."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.core import shadow_settings
from tests.nucleus.shadow_cloud import QUICK, REF, Cloud, running


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


async def test_shadow_manager_issue_98_when_the_cloud_makes_a_deleted_shadow_anew_then_it_is_never_deleted(
    tmp_path: Path, cloud: Cloud
) -> None:
    """Issue 98 of the original, online and offline."""
    async with running(tmp_path, cloud) as device:
        for online in (True, False):
            cloud.edit(desired={"a": 1})
            await device.rests()
            cloud.go(online)
            cloud.delete()
            await device.rests()
            cloud.edit(desired={"b": 1})
            cloud.go(True)
            device.sync.connected()
            await device.rests()

            assert await device.state() == {"desired": {"b": 1}} == cloud.state
            cloud.delete()
            await device.rests()
            assert await device.state() is None
        assert "delete" not in cloud.verbs


async def test_shadow_manager_issue_116_when_an_answer_never_comes_then_it_is_asked_again_and_nothing_hangs(
    tmp_path: Path, cloud: Cloud
) -> None:
    """Issue 116 of the original."""
    cloud.fault = lambda _verb: None
    async with running(tmp_path, cloud, answer_s=0.02) as device:
        await device.update(reported={"a": 1})
        await device.rests()
        assert cloud.state is None

        cloud.fault = lambda _verb: 0
        device.later(200)
        await device.rests()

        assert cloud.state == {"reported": {"a": 1}}


async def test_shadow_manager_issue_175_when_both_sides_conflict_again_and_again_then_it_ends_after_each(
    tmp_path: Path, cloud: Cloud
) -> None:
    """Issue 175 of the original: a conflict that was tried again as a whole, and met the next one."""
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"n": 0}, desired={"n": 0})
        await device.rests()
        for number in range(1, 20):
            cloud.asked.clear()
            cloud.edit(desired={"n": number}, reported={"n": -number})
            await device.update(reported={"n": number}, desired={"n": -number})
            await device.rests()

            assert cloud.state == {"reported": {"n": number}, "desired": {"n": number}} == await device.state()
            assert len(cloud.asked) <= 6


@pytest.mark.parametrize("online", [True, False])
async def test_shadow_manager_issue_121_when_both_sides_change_the_same_keys_then_by_the_rule_that_is_written_down(
    tmp_path: Path, cloud: Cloud, online: bool
) -> None:
    """Issue 121 of the original: which side wins was not said. What is reported is the device's, what is desired the cloud's."""
    async with running(tmp_path, cloud) as device:
        await device.update(reported={"a": 0, "b": 0}, desired={"a": 0, "b": 0})
        await device.rests()
        cloud.go(online)
        cloud.edit(reported={"a": "cloud", "b": None}, desired={"a": "cloud", "b": None, "c": "cloud"})
        await device.update(reported={"a": "device", "b": 1}, desired={"a": "device", "b": 1, "d": "device"})
        cloud.go(True)
        device.sync.connected()
        await device.rests()

        reported, desired = {"a": "device", "b": 1}, {"a": "cloud", "c": "cloud", "d": "device"}
        assert cloud.state == {"reported": reported, "desired": desired} == await device.state()


async def test_shadow_manager_issue_129_when_the_configuration_is_reset_and_set_again_then_it_is_heard(
    tmp_path: Path, cloud: Cloud
) -> None:
    """Issue 129 of the original: a reset of the configuration ended the listening to it."""
    async with running(tmp_path, cloud) as device:
        for number in range(3):
            device.used = shadow_settings.Settings()
            device.sync.wake()
            await device.rests()
            device.used = QUICK
            device.sync.wake()
            await device.update(reported={"n": number})
            await device.rests()

            assert cloud.state == {"reported": {"n": number}}
        assert REF in device.sync._watched
