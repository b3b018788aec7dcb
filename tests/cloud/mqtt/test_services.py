"""Requests of devices through the services, the outbox and a broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.mqtt import bell, principals, sender, services
from cloud.store import database, outbox, schema
from cloud.store import fleet as fleet_store
from cloud.store import principals as principal_store
from nucleus.wire import jobs
from tests.cloud import fakes, fleet
from tests.cloud.core import test_fleet_status as recorded

NOW_MS = fleet.NOW_MS
THINGS = "$aws/things/T"
NAMESPACE = f"namespace-{jobs.NAMESPACE}"
DAMAGED = {"thing": "T", "name": "", "state": "{", "metadata": "{}", "version": 1, "deleted": False, "updated_ms": 1}
SHADOW = f"{THINGS}/shadow/name/{jobs.SHADOW}"


class Service:
    """The MQTT half of the service over a broker in memory."""

    def __init__(self, store: database.Database) -> None:
        self.store = store
        self.broker = fakes.FakeBroker()
        self.outbox, self.principals = bell.Bell(), bell.Bell()
        self.log: Any = fakes.FakeLog()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        actors = (
            sender.Sender(self.store, self.broker, self.outbox, self.log),
            principals.Pusher(self.store, self.broker, self.principals, self.log),
            services.Services(self.store, self.broker, lambda: NOW_MS, self.outbox.ring, self.log),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(actor.run()) for actor in actors]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def deploy(self, target: str = "thinggroup/G") -> None:
        with self.store.begin() as tx:
            fleet.deploy(tx, target)
        self.outbox.ring()

    def waiting(self) -> list[str]:
        with self.store.read() as tx:
            return [message.topic for message in outbox.waiting(tx, limit=100)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[database.Database]:
    with fleet.opened(tmp_path) as opened:
        with opened.begin() as tx:
            fleet.populate(tx, "T", "U", group="G")
        yield opened


@pytest.fixture
async def service(store: database.Database) -> AsyncIterator[Service]:
    made = Service(store)
    async with made.running():
        yield made


async def test_next_when_lite_asks_then_its_token_is_echoed_and_the_document_is_there(service: Service) -> None:
    service.deploy()

    service.broker.hear(jobs.next_get("T"), {"clientToken": "jobs-nucleus-lite"})
    answer = await service.broker.answer("T/jobs/$next/namespace-aws-gg-deployment/get/accepted")

    assert answer["clientToken"] == "jobs-nucleus-lite"
    assert answer["execution"]["jobDocument"]["deploymentId"] == "d1"


async def test_next_when_nothing_is_pending_then_the_answer_has_no_execution(service: Service) -> None:
    service.broker.hear(jobs.next_get("T"), b"")

    answer = await service.broker.answer("/get/accepted")

    assert answer == {"timestamp": NOW_MS // 1000}
    assert service.broker.done == [jobs.next_get("T")]


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        (jobs.next_get("T"), b"not json", "InvalidJson"),
        (jobs.next_get("T"), b'{"includeJobDocument":"yes","clientToken":"c"}', "InvalidRequest"),
        (f"{THINGS}/jobs/nope/{NAMESPACE}/get", {"clientToken": "c"}, "ResourceNotFound"),
        (f"{THINGS}/jobs/nope/{NAMESPACE}/update", {"status": "IN_PROGRESS", "clientToken": "c"}, "ResourceNotFound"),
        (f"{THINGS}/jobs/j1/{NAMESPACE}/update", {"status": "FAILURE", "clientToken": "c"}, "InvalidRequest"),
        (f"{THINGS}/jobs/j1/{NAMESPACE}/update", {"clientToken": "c"}, "InvalidRequest"),
        (f"{THINGS}/jobs/j1/{NAMESPACE}/update", {"status": "FAILED", "expectedVersion": 9}, "VersionMismatch"),
        (f"{THINGS}/jobs/j1/update", {"status": "FAILED", "clientToken": "c"}, "ResourceNotFound"),
    ],
)
async def test_request_when_it_cannot_be_done_then_it_is_rejected_with_its_code(
    service: Service, topic: str, payload: Any, code: str
) -> None:
    service.deploy()

    service.broker.hear(topic, payload)
    answer = await service.broker.answer(f"{topic}/rejected")

    assert answer["code"] == code
    if b"clientToken" in fakes.encoded(payload):
        assert answer["clientToken"] == "c"


async def test_plain_job_topics_when_asked_then_namespaced_jobs_do_not_show(service: Service) -> None:
    service.deploy()

    service.broker.hear(f"{THINGS}/jobs/get", {"clientToken": "c"})
    service.broker.hear(f"{THINGS}/jobs/$next/get", {})

    listed = await service.broker.answer("T/jobs/get/accepted")
    assert listed == {"timestamp": NOW_MS // 1000, "inProgressJobs": [], "queuedJobs": [], "clientToken": "c"}
    assert "execution" not in await service.broker.answer("T/jobs/$next/get/accepted")


async def test_update_when_java_reports_then_it_is_accepted_and_the_empty_list_told(service: Service) -> None:
    service.deploy()
    details = {"detailed-deployment-status": "SUCCESSFUL"}
    update = {"jobId": "j1", "thingName": "T", "status": "SUCCEEDED", "statusDetails": details}

    service.broker.hear(jobs.update("T", "j1"), update)

    assert await service.broker.answer("T/jobs/j1/namespace-aws-gg-deployment/update/accepted")
    assert (await service.broker.answer("T/jobs/notify-namespace-aws-gg-deployment", skip=1))["jobs"] == {}


async def test_presence_when_a_device_connects_then_it_is_notified_again(service: Service) -> None:
    service.deploy()
    await service.broker.answer("T/jobs/notify-namespace-aws-gg-deployment")

    service.broker.hear("$aws/events/presence/connected/T", {"eventType": "connected"})

    told = await service.broker.answer("T/jobs/notify-namespace-aws-gg-deployment", skip=1)
    assert told["jobs"]["QUEUED"][0]["jobId"] == "j1"


async def test_shadow_when_deployed_to_and_reported_then_the_whole_conversation_is_as_documented(
    service: Service,
) -> None:
    service.broker.hear(f"{SHADOW}/get", b"")
    assert (await service.broker.answer(f"{SHADOW}/get/rejected"))["code"] == 404
    service.deploy("thing/T")
    told = await service.broker.answer(f"{SHADOW}/update/accepted")
    assert told["state"]["desired"]["desiredStatus"] == "SUCCEEDED"

    arn = "arn:aws:greengrass:us-east-1:123456789012:configuration:thing/T:1"
    reported = {"fleetConfigurationArnForStatus": arn, "status": "SUCCEEDED", "ggcVersion": "2.18.0"}
    report = {"shadowName": jobs.SHADOW, "thingName": "T", "state": {"reported": reported}}
    service.broker.hear(f"{SHADOW}/update", {**report, "version": 99})
    assert (await service.broker.answer(f"{SHADOW}/update/rejected"))["code"] == 409
    service.broker.hear(f"{SHADOW}/update", {**report, "version": told["version"]})

    assert (await service.broker.answer(f"{SHADOW}/update/accepted", skip=1))["version"] == 2
    service.broker.hear(f"{SHADOW}/get", b"")
    assert (await service.broker.answer(f"{SHADOW}/get/accepted"))["state"]["reported"] == reported
    with service.store.read() as tx:
        assert fleet_store.effective_deployments(tx, "T")[0]["coreDeviceExecutionStatus"] == "COMPLETED"


async def test_classic_shadow_when_desired_and_deleted_then_delta_documents_and_end_are_told(service: Service) -> None:
    topic = f"{THINGS}/shadow"
    service.broker.hear(f"{topic}/update", {"state": {"desired": {"a": 1}}, "clientToken": "c"})

    assert (await service.broker.answer(f"{topic}/update/delta"))["state"] == {"a": 1}
    assert (await service.broker.answer(f"{topic}/update/documents"))["current"]["version"] == 1
    service.broker.hear(f"{topic}/delete", b"")
    assert (await service.broker.answer(f"{topic}/delete/accepted"))["version"] == 1
    service.broker.hear(f"{topic}/delete", b"")
    assert (await service.broker.answer(f"{topic}/delete/rejected"))["code"] == 404


async def test_fleet_status_when_a_registered_thing_reports_then_it_is_a_core_device(service: Service) -> None:
    service.broker.hear("$aws/things/stranger/greengrassv2/health/json", recorded.JAVA)
    service.broker.hear(jobs.fleet_status("T"), recorded.JAVA)
    service.broker.hear(jobs.next_get("T"), b"")

    await service.broker.answer("/get/accepted")

    with service.store.read() as tx:
        assert [one["coreDeviceThingName"] for one in fleet_store.core_devices(tx)] == ["T"]


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/certificates/create/json",
        "$aws/things/T/jobs",
        "$aws/things/T/shadow",
        "$aws/things/T/shadow/name/bad name/get",
        "$aws/things/T/jobs/j1/namespace-other/get/accepted",
        "$aws/events/presence/disconnected/T",
        "whatever",
    ],
)
async def test_message_when_it_is_for_no_service_then_it_is_taken_and_the_next_one_served(
    service: Service, topic: str
) -> None:
    service.broker.hear(topic, b"\xff")
    service.broker.hear(jobs.next_get("T"), b"")

    await service.broker.answer("/get/accepted")

    assert service.broker.done == [topic, jobs.next_get("T")]
    assert len(service.broker.published) == 1


async def test_request_when_the_database_refuses_then_it_waits_unacknowledged_and_is_served_later(
    service: Service, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "cloud.db")) as other:
        other.execute("ALTER TABLE outbox RENAME TO hidden")
        service.broker.hear(jobs.next_get("T"), {})
        await service.log.told("requests.delayed")
        assert service.broker.done == []
        other.execute("ALTER TABLE hidden RENAME TO outbox")

    assert await service.broker.answer("/get/accepted")
    assert service.broker.done == [jobs.next_get("T")]


async def test_sender_when_the_database_refuses_then_it_goes_on_when_it_does_not(
    service: Service, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "cloud.db")) as other:
        other.execute("ALTER TABLE outbox RENAME TO hidden")
        service.outbox.ring()
        await service.log.told("outbox.refused")
        other.execute("ALTER TABLE hidden RENAME TO outbox")
    service.deploy()

    assert await service.broker.answer("T/jobs/notify-namespace-aws-gg-deployment")


async def test_request_when_a_row_is_damaged_then_it_fails_alone_and_others_are_served(service: Service) -> None:
    with service.store.begin() as tx:
        tx.execute(schema.shadows.insert().values(DAMAGED))

    service.broker.hear(f"{THINGS}/shadow/get", b"")
    service.broker.hear(jobs.next_get("T"), b"")

    assert await service.broker.answer("/get/accepted")
    assert (await service.log.told("request.failed"))["topic"] == f"{THINGS}/shadow/get"
    assert len(service.broker.done) == 2


async def test_sender_when_the_broker_is_away_then_messages_wait_and_come_in_order(
    store: database.Database,
) -> None:
    service = Service(store)
    service.broker.down = True
    with store.begin() as tx:
        outbox.put_all(tx, [(f"{THINGS}/{number}", b"1") for number in range(5)], NOW_MS)
        outbox.put(tx, "$aws/things/U/0", b"1", NOW_MS)

    async with service.running():
        await service.broker.refused.wait()
        service.broker.down = False
        await service.broker.answer("T/4")
        await service.broker.answer("U/0")

    mine = [topic for topic, _ in service.broker.published if topic.startswith(THINGS)]
    assert mine == [f"{THINGS}/{number}" for number in range(5)]


async def test_sender_when_it_died_between_send_and_forget_then_a_successor_sends_again(
    store: database.Database,
) -> None:
    first = Service(store)
    first.broker.hang_after = 2
    with store.begin() as tx:
        outbox.put_all(tx, [(f"{THINGS}/{number}", b"1") for number in range(4)], NOW_MS)
    async with first.running():
        await first.broker.hanging.wait()
    assert len(first.waiting()) == 4

    second = Service(store)
    async with second.running():
        await second.broker.answer("T/3")

    assert [topic for topic, _ in first.broker.published] == [f"{THINGS}/0", f"{THINGS}/1"]
    assert [topic for topic, _ in second.broker.published] == [f"{THINGS}/{number}" for number in range(4)]


async def test_sender_when_a_batch_was_taken_then_it_is_forgotten_before_the_next(service: Service) -> None:
    service.deploy()
    await service.broker.answer("U/jobs/notify-next-namespace-aws-gg-deployment")

    with service.store.begin() as tx:
        outbox.put(tx, f"{THINGS}/last", b"1", NOW_MS)
    service.outbox.ring()
    await service.broker.answer("T/last")

    assert set(service.waiting()) <= {f"{THINGS}/last"}


async def test_pusher_when_principals_change_then_the_new_version_is_pushed(service: Service) -> None:
    with service.store.begin() as tx:
        principal_store.add_policy(tx, "p", '{"Statement": []}', NOW_MS)
        version = principal_store.version(tx)
    service.principals.ring()

    pushed = await service.broker.pushed(version)

    assert pushed.policies == {"p": {"Statement": []}}
