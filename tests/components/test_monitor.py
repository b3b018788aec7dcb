"""The monitor as a process, beside a real agent and on a real IPC server, through everything a demo does to it."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus.ipc import connection
from tests.components import parts
from tests.nucleus import fakes_ipc

NAME = "com.example.turbine.Monitor"
THING = "turbine-1"


class Farm:
    """One device with an IPC server, an agent and whatever monitor is started."""

    def __init__(self, device: parts.Device, world: fakes_ipc.World) -> None:
        self.device = device
        self.world = world
        recipe = yaml.safe_load((parts.RECIPES / f"{NAME}-1.0.0.yaml").read_text())
        defaults = recipe["ComponentConfiguration"]["DefaultConfiguration"]
        self.token = world.do(lambda: world.add(NAME, access=defaults["accessControl"]))

    def start(self, version: str = "1.0.0", rows_per_second: str = "8000") -> subprocess.Popen[str]:
        files = self.device.root / "packages" / f"monitor-{version}"
        if not files.exists():
            parts.publish(f"{NAME}-{version}", parts.MONITOR.parent / version, files)
        environment = {
            "SVCUID": self.token,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.world.path),
        }
        words = ["--thing", THING, "--component-version", version, "--rows-per-second", rows_per_second]
        started: subprocess.Popen[str] = self.device.start(NAME, files / "monitor.py", *words, environment=environment)
        return started

    def counters(self) -> dict[str, Any]:
        path = self.device.work(NAME) / "counters.json"
        read: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return read

    def published(self, kind: str) -> list[dict[str, Any]]:
        """What arrived in the cloud, in order."""
        return [
            json.loads(payload)
            for topic, payload, _, _ in list(self.world.uplink.published)
            if topic == f"turbines/{THING}/{kind}"
        ]

    def stop(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(parts.WAIT_S) == 0, self.device.log(NAME)

    def alarms(self) -> list[sqlite3.Row]:
        with contextlib.closing(sqlite3.connect(self.device.work(NAME) / "alarms.sqlite")) as database:
            database.row_factory = sqlite3.Row
            return database.execute("SELECT * FROM alarms ORDER BY id").fetchall()

    def wait(self, **least: int) -> dict[str, Any]:
        """The counters once each of these is reached."""
        found: dict[str, Any] = parts.until(
            lambda: (now := self.counters()) and all(now[name] >= value for name, value in least.items()) and now,
            f"{least}; {self.device.log(NAME)[-2000:]}",
        )
        return found


@pytest.fixture
def farm() -> Iterator[Farm]:
    with parts.device() as device:
        world = fakes_ipc.World(device.root / "ipc.socket", connection.Limits())
        with fakes_ipc.serving_in_thread(world):
            made = Farm(device, world)
            try:
                yield made
            finally:
                device.end()  # before the server goes
                parts.until(lambda: not world.do(lambda: world.server._connections), "connections to end")


def test_monitor_when_models_change_and_the_agent_dies_then_no_prediction_fails(farm: Farm) -> None:
    monitor = farm.start()  # before agent and model: a boot in the wrong order
    agent = farm.device.start_agent()
    farm.device.offer("1.0.0")
    farm.wait(rows=500)

    farm.device.offer("1.1.0")
    parts.until(lambda: farm.counters()["model_version"] == "1.1.0", "the new model to answer")
    farm.device.offer("1.2.0")
    agent.send_signal(signal.SIGKILL)
    agent.wait(parts.WAIT_S)
    farm.device.start_agent()
    farm.wait(rows=farm.counters()["rows"] + 500, alarms=2)
    farm.stop(monitor)

    counters = farm.counters()
    assert (counters["pid"], counters["predictions_failed"]) == (monitor.pid, 0)
    assert set(counters["model_versions"]) == {"1.0.0", "1.1.0"}
    assert sum(counters["model_versions"].values()) == counters["predictions_ok"]
    assert (counters["thing"], counters["turbine"], counters["version"]) == (THING, "R80711", "1.0.0")


def test_alarms_when_found_then_stored_and_published_here_and_to_the_cloud(farm: Farm) -> None:
    here: list[bytes] = []
    world = farm.world
    listen = ("turbines/#", "RECEIVE_ALL_MESSAGES", "listener", lambda topic, message: here.append(message))
    world.do(world.broker.subscribe, *listen)
    farm.device.start_agent()
    farm.device.offer("1.0.0")

    monitor = farm.start()
    farm.wait(alarms=2)
    parts.until(lambda: len(farm.published("alarms")) >= 2, "alarms in the cloud")
    farm.stop(monitor)

    stored = farm.alarms()
    told = farm.published("alarms")
    assert told[0] == {
        "turbine": "R80711",
        "kind": "under-performance",
        "started": stored[0]["started"],
        "ended": stored[0]["ended"],
        "minutes": stored[0]["rows"] * 10,
        "power_kw": stored[0]["power_kw"],
        "expected_kw": stored[0]["expected_kw"],
        "wind_speed_m_s": stored[0]["wind_speed_m_s"],
        "model_version": "1.0.0",
    }
    assert stored[0]["started"].startswith("2014-12-01T")  # the icing night of that winter
    assert stored[0]["power_kw"] < 0.7 * stored[0]["expected_kw"]
    assert len(here) == len(told)
    assert farm.published("counters")[-1]["predictions_failed"] == 0


def test_monitor_when_restarted_as_1_1_0_then_goes_on_and_says_what_is_lost(farm: Farm) -> None:
    farm.device.start_agent()
    farm.device.offer("1.1.0")
    first = farm.start("1.0.0")
    farm.wait(alarms=2)
    farm.stop(first)
    before = farm.alarms()
    last_row = farm.counters()["last_row"]

    second = farm.start("1.1.0")
    parts.until(lambda: farm.counters()["version"] == "1.1.0" and farm.counters()["rows"], "1.1.0")
    parts.until(lambda: farm.counters()["alarms"] > len(before), "a new alarm")
    farm.stop(second)

    after = farm.alarms()
    assert [row["started"] for row in after[: len(before)]] == [row["started"] for row in before]
    assert after[-1]["started"] > last_row[:10]
    for row in after:
        assert row["lost_kwh"] == pytest.approx((row["expected_kw"] - row["power_kw"]) * row["rows"] / 6, abs=0.06)
    assert farm.published("alarms")[-1]["lost_kwh"] > 0

    third = farm.start("1.0.0")  # a rollback
    parts.until(lambda: farm.counters()["version"] == "1.0.0" and farm.counters()["rows"], "1.0.0 on 1.1.0's file")
    farm.stop(third)


def test_alarms_when_publishing_is_refused_then_kept_and_told_later(farm: Farm) -> None:
    world = farm.world
    path = ("services", NAME, "configuration", "accessControl")
    allowed = {"aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["*"]}}}
    world.do(world.drop, path)
    farm.device.start_agent()
    farm.device.offer("1.0.0")
    monitor = farm.start()
    farm.wait(alarms=1)
    parts.until(lambda: "cannot publish for now: UnauthorizedError" in farm.device.log(NAME), "a refusal")
    assert farm.published("alarms") == []

    allowed["aws.greengrass.ipc.mqttproxy"] = allowed["aws.greengrass.ipc.pubsub"]
    world.do(world.put, path, allowed)

    parts.until(lambda: farm.published("alarms"), "the alarm after all")
    farm.stop(monitor)
    assert farm.counters()["predictions_failed"] == 0


def test_monitor_when_all_rows_are_replayed_then_begins_again_without_new_alarms(farm: Farm) -> None:
    farm.device.start_agent()
    farm.device.offer("1.0.0")
    first = farm.start()  # makes the file
    farm.wait(rows=1)
    farm.stop(first)
    with contextlib.closing(sqlite3.connect(farm.device.work(NAME) / "alarms.sqlite")) as database:
        database.execute("INSERT OR REPLACE INTO progress VALUES ('R80711', 52400, 0)")
        database.commit()

    monitor = farm.start()

    farm.wait(passes=1, alarms=2)
    farm.stop(monitor)
    starts = [row["started"] for row in farm.alarms()]
    assert len(starts) == len(set(starts))


def test_monitor_when_not_started_by_a_nucleus_then_says_so(tmp_path: Path) -> None:
    with parts.device() as device:
        files = parts.publish(f"{NAME}-1.0.0", parts.MONITOR, device.root / "packages/monitor")
        process = device.start(NAME, files / "monitor.py", "--thing", THING, environment={"SVCUID": ""})

        assert process.wait(parts.WAIT_S) == 1
        assert "cannot start the monitor: cannot publish: SVCUID is not set" in device.log(NAME)
