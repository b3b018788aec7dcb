"""The telemetry actor with short intervals, a publisher that remembers, and the real machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nucleus.actors import telemetry as actor
from nucleus.core import errors, telemetry
from nucleus.host import logs

SOON = telemetry.Settings(True, 0.02, 0.1)


class Publisher:
    """Remembers messages; refuses while `offline`."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.refused = asyncio.Event()
        self.offline = False

    async def publish(self, topic: str, payload: bytes, qos: int = 1, /) -> None:
        if self.offline:
            self.refused.set()
            raise errors.NucleusError("NETWORK_ERROR", "cannot publish: the spool is full")
        self.messages.put_nowait((topic, json.loads(payload)))


@asynccontextmanager
async def running(
    publisher: Publisher, folder: Path, settings: Callable[[], telemetry.Settings]
) -> AsyncIterator[None]:
    one = actor.Telemetry(
        publisher,
        thing="t1",
        folder=folder / "telemetry",
        health=dict,
        settings=settings,
        log=logs.Log("test", directory=folder),
        sample_s=0.01,
    )
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        task = group.create_task(one.run())
        yield
        task.cancel()


def _held(folder: Path) -> Any:
    return json.loads((folder / "telemetry" / "aggregates.json").read_bytes())["aggregates"]


async def test_telemetry_when_the_interval_is_over_then_averages_of_the_machine_are_published(tmp_path: Path) -> None:
    publisher = Publisher()

    async with running(publisher, tmp_path, lambda: SOON):
        topic, message = await publisher.messages.get()

    assert topic == "$aws/things/t1/greengrass/health/json"
    assert message["Schema"] == "2022-06-30"
    assert {one["NS"] for one in message["ADP"]} == {"SystemMetrics", "GreengrassComponents"}
    names = {each["N"]: each["Average"] for one in message["ADP"] for each in one["M"]}
    assert names["SystemMemUsage"] > 1
    assert names["TotalNumberOfFDs"] > 1
    assert 0 <= names["CpuUsage"] <= 100


async def test_telemetry_when_it_cannot_be_published_then_it_survives_a_restart(tmp_path: Path) -> None:
    publisher = Publisher()
    publisher.offline = True
    async with running(publisher, tmp_path, lambda: SOON):
        await publisher.refused.wait()
    kept = _held(tmp_path)
    publisher.offline = False

    async with running(publisher, tmp_path, lambda: telemetry.Settings(True, 1000, 0.1)):
        _, message = await publisher.messages.get()

    assert kept
    assert message["ADP"] == kept


async def test_telemetry_when_it_is_disabled_then_nothing_is_told_until_it_is_enabled(tmp_path: Path) -> None:
    publisher, asked = Publisher(), asyncio.Event()
    looks, enabled = 0, False

    def settings() -> telemetry.Settings:
        nonlocal looks
        looks += 1
        if looks > 20:
            asked.set()
        return telemetry.Settings(enabled, 0.02, 0.05)

    async with running(publisher, tmp_path, settings):
        await asked.wait()
        assert publisher.messages.empty()
        assert not (tmp_path / "telemetry").exists()
        enabled = True
        await publisher.messages.get()


async def test_telemetry_when_its_file_is_damaged_then_it_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "telemetry").mkdir()
    (tmp_path / "telemetry" / "aggregates.json").write_text('{"published_ms": "x"')
    publisher = Publisher()

    async with running(publisher, tmp_path, lambda: SOON):
        _, message = await publisher.messages.get()

    assert message["ADP"]
