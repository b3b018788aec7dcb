"""Faults of the field about messages on their way to the cloud: the store that fills the disk, the publisher that leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from pathlib import Path

import pytest

from nucleus.core import errors, mqtt_settings
from nucleus.host import logs
from nucleus.store import spool as store
from nucleus.uplink import spool

PAYLOAD = bytes(1000)


class Device:
    """A spool whose clock stands still unless it is moved, and a broker that takes everything."""

    def __init__(
        self, folder: Path, settings: mqtt_settings.Settings, reserve_bytes: int = store.RESERVE_BYTES
    ) -> None:
        self.folder = folder / "spool"
        self.moment = 0.0
        self.sent = 0
        file = store.SpoolStore(self.folder, reserve_bytes=reserve_bytes)
        self.kept = spool.Spool(logs.Log("test", directory=folder), store=file, clock=lambda: self.moment)
        self.kept.configure(settings)

    async def publish(self, count: int) -> int:
        """Returns how many were refused."""
        taken = 0
        for number in range(count):
            with contextlib.suppress(errors.NucleusError):
                await self.kept.keep(spool.Message(topic=f"t/{number % 7}", payload=PAYLOAD, qos=1))
                taken += 1
        return count - taken

    async def take(self, _message: spool.Message) -> int:
        self.sent += 1
        return 0

    async def send_all(self) -> None:
        """As fast as it goes: a second passes whenever the rate asks for it."""
        self.kept.online(True)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            pumping = group.create_task(self.kept.pump(self.take))
            while len(self.kept):
                self.moment += 1
                self.kept._end_pause()
                await asyncio.sleep(0)
            await self.kept._backlog.settle()
            pumping.cancel()

    def on_disk(self) -> int:
        return sum(one.stat().st_size for one in self.folder.iterdir() if not one.name.endswith("-shm"))


async def test_iotedge_issue_6164_when_offline_for_months_then_the_spool_on_disk_stays_within_its_bound(
    tmp_path: Path,
) -> None:
    """The message store fills the disk, and the hub stops; after the outage the disk is not given back."""
    device = Device(tmp_path, mqtt_settings.Settings(disk=True, spool_bytes=1_000_000))

    refused = await device.publish(3000)

    assert 2000 < refused < 2400
    assert device.on_disk() < 2 * 1_000_000 + 5_000_000  # and SQLite's log, which does not grow
    held = len(device.kept)
    await device.send_all()
    assert device.sent == held


async def test_iotedge_issue_6164_when_the_disk_is_nearly_full_then_publishing_is_refused_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path, mqtt_settings.Settings(disk=True), reserve_bytes=1 << 62)  # more than there is

    with pytest.raises(errors.NucleusError, match="are left on the disk") as caught:
        await device.kept.keep(spool.Message(topic="t", payload=PAYLOAD, qos=1))
    device.kept.put(spool.Message(topic="$aws/things/t/jobs/1/update", payload=PAYLOAD, qos=1))

    assert caught.value.code == "DISK_SPACE_CRITICAL"
    await device.send_all()
    assert device.sent == 1


@pytest.mark.parametrize("disk", [False, True])
async def test_nucleus_issue_848_when_thousands_are_published_then_memory_does_not_grow(
    tmp_path: Path, disk: bool
) -> None:
    """Publishing thousands of messages per minute leaks (also aws-iot-device-sdk-python-v2 issue 149)."""
    device = Device(tmp_path, mqtt_settings.Settings(disk=disk))

    async def minute() -> None:
        for _ in range(4):
            assert await device.publish(500) == 0
            await device.send_all()
            device.kept.online(False)

    await minute()  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await minute()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert device.sent == 4000
    assert grown < 64 * 1024
