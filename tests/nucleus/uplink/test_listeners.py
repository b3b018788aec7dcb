"""The two sources of deployments against a connection that the test holds in its hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import document, errors, progress, status
from nucleus.host import logs
from nucleus.store import deployments
from nucleus.uplink import listeners, mqtt
from nucleus.wire import jobs

THING = "t1"
ARN = "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/turbines:2"


class Connection:
    """Stands for mqtt.Connection: `say` delivers a message, `sent` is what was published."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.published = asyncio.Event()
        self._sinks: dict[str, mqtt.Deliver] = {}
        self._up: list[Callable[[], None]] = []

    def on_connected(self, callback: Callable[[], None]) -> None:
        self._up.append(callback)

    async def subscribe(self, filter_: str, qos: int, deliver: mqtt.Deliver) -> Callable[[], None]:
        self._sinks[filter_.replace("+", "job-1")] = deliver
        return lambda: None

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        self.sent.append((topic, json.loads(payload)))
        self.published.set()

    def say(self, topic: str, body: Any) -> None:
        self._sinks[topic](mqtt.IncomingMessage(topic=topic, payload=json.dumps(body).encode()))

    def reconnect(self) -> None:
        for callback in self._up:
            callback()

    async def next(self, ending: str) -> dict[str, Any]:
        """Waits for the next message to a topic with that end, and forgets what came before it."""
        async with asyncio.timeout(5):
            while True:
                for index, (topic, body) in enumerate(self.sent):
                    if topic.endswith(ending):
                        del self.sent[: index + 1]
                        return body
                self.published.clear()
                await self.published.wait()


class Inbox:
    def __init__(self) -> None:
        self.records: list[deployments.Record] = []
        self.refused: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self.kept: list[frozenset[str]] = []

    def submit(self, record: deployments.Record) -> None:
        self.records.append(record)

    def refuse(self, record: deployments.Record, error: errors.NucleusError) -> None:
        self.refused.append((record.carrier, error.code))

    def cancel(self, source: str, carrier: str) -> None:
        self.cancelled.append(carrier)

    def keep_jobs(self, listed: frozenset[str], *, before_ms: int = 0) -> None:
        self.kept.append(listed)


class World:
    def __init__(self, log: logs.Log) -> None:
        self.connection, self.inbox = Connection(), Inbox()
        self.jobs = listeners.JobSource(self.connection, THING, self.inbox, log)  # type: ignore[arg-type]  # its shape
        self.shadow = listeners.ShadowSource(self.connection, THING, self.inbox, log)  # type: ignore[arg-type]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.jobs.run()), group.create_task(self.shadow.run())]
            await self.connection.next("$next/namespace-aws-gg-deployment/get")
            await self.connection.next("/get")
            yield self
            for task in tasks:
                task.cancel()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(logs.Log("test", directory=tmp_path)).running() as one:
        yield one


def record(result: status.Result | None = None, source: str = deployments.JOB) -> deployments.Record:
    found = document.Document(deployment_id="d1", configuration_arn=ARN, group="thinggroup/turbines", created_ms=1)
    return deployments.Record(document=found, source=source, carrier="job-1", result=result)


def notify(world: World, body: Any) -> None:
    world.connection.say(jobs.notify(THING), {"timestamp": 1, "jobs": body})


def shadow(world: World, version: Any, state: Any, verb: str = "get", at: Any = 5) -> None:
    world.connection.say(f"{jobs.shadow(THING)}/{verb}/accepted", {"version": version, "timestamp": at, "state": state})


def desired(revision: int, wanted: str = "SUCCEEDED") -> dict[str, Any]:
    arn = f"arn:aws:greengrass:us-east-1:123456789012:configuration:thing/t1:{revision}"
    config = {"deploymentId": f"d{revision}", "configurationArn": arn, "creationTimestamp": revision, "components": {}}
    return {"desired": {"fleetConfig": json.dumps(config), "desiredStatus": wanted}}


async def test_notify_when_jobs_are_listed_then_only_those_are_kept_and_the_next_is_asked_for(world: World) -> None:
    notify(world, {"QUEUED": [{"jobId": "a"}], "IN_PROGRESS": [{"jobId": "b"}]})
    await world.connection.next("/get")
    notify(world, {})
    await world.connection.next("/get")

    assert world.inbox.kept == [frozenset({"a", "b"}), frozenset()]


async def test_notify_when_the_list_may_be_cut_then_nothing_is_cancelled(world: World) -> None:
    notify(world, {"QUEUED": [{"jobId": str(number)} for number in range(10)]})
    await world.connection.next("/get")

    assert world.inbox.kept == []


async def test_report_when_offline_then_not_tried_and_nothing_piles_up(world: World) -> None:
    """A device that is offline for days must not fill its spool with the same report."""
    world.connection.connected = False
    world.connection.sent.clear()

    for source in (world.jobs, world.shadow):
        for _ in range(100):
            assert not await source.report(record(), "IN_PROGRESS", {})

    assert world.connection.sent == []


@pytest.mark.parametrize("which", ["jobs", "shadow"])
async def test_report_when_the_answer_is_lost_with_the_connection_then_given_up_at_the_next_one(
    world: World, which: str
) -> None:
    async with asyncio.TaskGroup() as group:
        report = group.create_task(getattr(world, which).report(record(), "IN_PROGRESS", {}))
        await world.connection.next("/update")
        world.connection.reconnect()

    assert report.result() is False


@pytest.mark.parametrize(
    ("code", "confirmed"), [("InvalidStateTransition", True), ("ResourceNotFound", True), ("RequestThrottled", False)]
)
async def test_report_when_rejected_then_final_codes_end_it(world: World, code: str, confirmed: bool) -> None:
    async with asyncio.TaskGroup() as group:
        report = group.create_task(world.jobs.report(record(), "SUCCEEDED", {}))
        asked = await world.connection.next("/update")
        answer = {"code": code, "clientToken": asked["clientToken"]}
        world.connection.say(f"{jobs.update(THING, 'job-1')}/rejected", answer)

    assert report.result() is confirmed


@pytest.mark.parametrize(("code", "confirmed"), [(413, True), (400, True), (500, False), (429, False)])
async def test_report_to_the_shadow_when_rejected_then_final_codes_end_it(
    world: World, code: int, confirmed: bool
) -> None:
    async with asyncio.TaskGroup() as group:
        report = group.create_task(world.shadow.report(record(), "SUCCEEDED", {}))
        asked = await world.connection.next("/update")
        answer = {"code": code, "clientToken": asked["clientToken"]}
        world.connection.say(f"{jobs.shadow(THING)}/update/rejected", answer)

    assert report.result() is confirmed


async def test_report_to_the_shadow_when_it_failed_with_a_long_cause_then_in_its_own_words_and_short(
    world: World,
) -> None:
    failed = status.failure(progress.Failed(("COMPONENT_BROKEN",), "\N{SNOWMAN}" * 9000), "FAILED_ROLLBACK_COMPLETE")
    async with asyncio.TaskGroup() as group:
        report = group.create_task(world.shadow.report(record(failed, deployments.SHADOW), "FAILED", {"x": "y"}))
        asked = await world.connection.next("/update")
        world.connection.reconnect()
    reported = asked["state"]["reported"]

    assert not report.result()
    assert reported["statusDetails"]["detailedStatus"] == "FAILED_ROLLBACK_COMPLETE"
    assert reported["statusDetails"]["errorStack"] == ["DEPLOYMENT_FAILURE", "COMPONENT_BROKEN"]
    assert len(json.dumps(reported)) < 8 * 1024


async def test_shadow_when_older_or_repeated_then_ignored(world: World) -> None:
    shadow(world, 5, desired(2))
    shadow(world, 4, desired(1))
    shadow(world, 6, desired(2))

    assert [one.id for one in world.inbox.records] == ["d2"]


@pytest.mark.parametrize("verb", ["get", "update"])
async def test_shadow_when_made_anew_with_version_1_then_its_deployment_is_taken(world: World, verb: str) -> None:
    shadow(world, 57, desired(2), at=100)
    shadow(world, 1, desired(3), verb, at=101)
    shadow(world, 2, desired(4), at=102)

    assert [one.id for one in world.inbox.records] == ["d2", "d3", "d4"]


async def test_shadow_when_its_time_is_odd_then_the_version_alone_decides(world: World) -> None:
    shadow(world, 5, desired(2), at="now")
    shadow(world, 4, desired(1), at=None)

    assert [one.id for one in world.inbox.records] == ["d2"]


async def test_shadow_when_cancelled_or_already_settled_then_no_deployment(world: World) -> None:
    arn = "arn:aws:greengrass:us-east-1:123456789012:configuration:thing/t1:3"
    reported = {"fleetConfigurationArnForStatus": arn, "status": "SUCCEEDED"}
    shadow(world, 5, desired(3) | {"reported": reported})
    shadow(world, 6, desired(4, "CANCELED"))

    assert world.inbox.records == []
    assert [one.endswith(":4") for one in world.inbox.cancelled] == [True]


@pytest.mark.parametrize(
    "state",
    [7, [], {"desired": 7}, {"desired": {"fleetConfig": 7}}, {"desired": {"fleetConfig": "{", "desiredStatus": []}}],
)
async def test_shadow_when_its_shape_is_odd_then_nothing_breaks(world: World, state: Any) -> None:
    shadow(world, 5, state)
    shadow(world, "x", desired(1))
    shadow(world, 6, desired(2))

    assert [one.id for one in world.inbox.records] == ["d2"]


async def test_next_when_a_document_cannot_be_read_then_refused_with_its_reason(world: World) -> None:
    topic = f"{jobs.next_get(THING)}/accepted"
    execution = {"jobId": "job-1", "queuedAt": 5, "jobDocument": {"deploymentId": "d", "configurationArn": 5}}
    world.connection.say(topic, {"timestamp": 1, "execution": execution})
    world.connection.say(topic, [1])
    world.connection.say(topic, {"timestamp": 1})

    assert world.inbox.refused == [("job-1", "DEPLOYMENT_DOCUMENT_NOT_VALID")]
