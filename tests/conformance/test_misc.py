"""Behaviours of spec/nucleus.md 13.6: telemetry and logs."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nucleus.actors import telemetry as actor
from nucleus.core import telemetry
from nucleus.host import logs
from tests.conformance import daemon


class Publisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def publish(self, topic: str, payload: bytes, qos: int = 1, /) -> None:
        self.messages.put_nowait((topic, json.loads(payload)))


@pytest.mark.parametrize("spelling", ["Seconds", "Sec"])
async def test_64_telemetry_when_intervals_are_configured_then_published_in_them(tmp_path: Path, spelling: str) -> None:
    intervals = {f"periodicAggregateMetricsInterval{spelling}": 0.05, f"periodicPublishMetricsInterval{spelling}": 0.2}
    found = telemetry.read({"telemetry": intervals}, least=telemetry.Settings(True, 0.01, 0.01))
    publisher = Publisher()
    one = actor.Telemetry(
        publisher,
        thing="t1",
        folder=tmp_path,
        health=dict,
        settings=lambda: found,
        log=logs.Log("test", directory=tmp_path),
        sample_s=0.01,
    )

    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        task = group.create_task(one.run())
        told = [await publisher.messages.get() for _ in range(3)]
        task.cancel()

    assert {topic for topic, _ in told} == {"$aws/things/t1/greengrass/health/json"}
    system = [one["TS"] for _, message in told for one in message["ADP"] if one["NS"] == "SystemMetrics"]
    assert all(later - earlier >= 49 for earlier, later in itertools.pairwise(system))
    assert system[-1] - system[0] >= 399  # three messages are two intervals apart


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: it holds a socket."""
    with tempfile.TemporaryDirectory(prefix="mk") as made:
        yield Path(made)


def test_68_logs_when_a_root_is_given_then_all_lie_under_it_as_configured(folder: Path) -> None:
    values = {
        "configuration": {
            "logging": {"format": "JSON", "level": "DEBUG"},
            "runWithDefault": {"posixUser": f"{os.getuid()}:{os.getgid()}"},
        }
    }
    with daemon.running(folder / "d", services={"aws.greengrass.Nucleus": values}) as one:
        name = one.component({"Run": "echo told by the component"})
        deployment = one.deploy_local({name: "1.0.0"})
        one.until(lambda: one.status(deployment) == "SUCCEEDED", "the deployment")
        own = [json.loads(line) for line in (folder / "d" / "logs" / f"{name}.log").read_text().splitlines()]

    assert {"told by the component"} == {line["message"] for line in own if line["eventType"] == "stdout"}
    assert json.loads(one.log().splitlines()[-1])["eventType"] == "nucleus.stopped"
    assert {path.suffix for path in (folder / "d" / "logs").iterdir()} == {".log"}
