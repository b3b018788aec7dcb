"""How the device learns that a job is over: lists, answers and refusals of the service, told apart by job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.core import document, errors
from nucleus.host import logs
from nucleus.store import deployments
from nucleus.uplink import listeners
from nucleus.wire import jobs

THING = "t1"


class Incoming(Struct, frozen=True):
    topic: str
    payload: bytes


class Connection:
    """A connected broker that keeps what was published and hands on what a test lets arrive."""

    connected = True

    def __init__(self) -> None:
        self.published: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._deliver: dict[str, Callable[[Incoming], None]] = {}

    def on_connected(self, callback: Callable[[], None]) -> None:
        pass

    async def subscribe(self, filter_: str, qos: int, deliver: Callable[[Incoming], None]) -> None:
        self._deliver[filter_] = deliver

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        self.published.put_nowait((topic, json.loads(payload)))

    def arrive(self, filter_: str, body: dict[str, Any]) -> None:
        self._deliver[filter_](Incoming(filter_, json.dumps(body).encode()))


class Inbox:
    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []
        self.kept: list[tuple[frozenset[str], int | None]] = []

    def submit(self, record: deployments.Record) -> None:
        raise AssertionError("no deployment was sent")

    def refuse(self, record: deployments.Record, error: errors.NucleusError) -> None:
        raise AssertionError("no deployment was sent")

    def cancel(self, source: str, carrier: str) -> None:
        self.cancelled.append((source, carrier))

    def keep_jobs(self, listed: frozenset[str], *, before_ms: int | None = None) -> None:
        self.kept.append((listed, before_ms))


async def conversation(tmp_path: Path, talk: Callable[[Connection, listeners.JobSource], Any]) -> tuple[Inbox, Any]:
    """Runs a source against a connection while `talk` is the service; returns the inbox and what `talk` returned."""
    connection, inbox = Connection(), Inbox()
    source = listeners.JobSource(
        connection,  # type: ignore[arg-type]  # has what a source uses
        THING,
        inbox,
        logs.Log("test", directory=tmp_path),
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(source.run())
        async with asyncio.timeout(10):
            found = await talk(connection, source)
        running.cancel()
    return inbox, found


async def test_notification_when_a_job_is_not_listed_then_older_ones_are_dropped(tmp_path: Path) -> None:
    async def talk(connection: Connection, source: listeners.JobSource) -> None:
        await connection.published.get()
        connection.arrive(jobs.notify(THING), {"timestamp": 100, "jobs": {}})
        connection.arrive(
            jobs.notify(THING), {"timestamp": 101, "jobs": {"QUEUED": [{"jobId": "j2"}], "IN_PROGRESS": "?"}}
        )
        full = [{"jobId": f"j{number}"} for number in range(jobs.LISTED)]
        connection.arrive(jobs.notify(THING), {"timestamp": 102, "jobs": {"QUEUED": full}})
        await connection.published.get()  # a hint: what is next is asked in any case

    inbox, _ = await conversation(tmp_path, talk)

    assert inbox.kept == [(frozenset(), 100_000), (frozenset({"j2"}), 101_000)]


async def test_next_when_nothing_is_pending_then_only_the_answer_to_the_latest_question_counts(tmp_path: Path) -> None:
    async def talk(connection: Connection, source: listeners.JobSource) -> None:
        _, question = await connection.published.get()
        answered = f"{jobs.next_get(THING)}/accepted"
        connection.arrive(answered, {"timestamp": 1, "clientToken": "an older one"})
        connection.arrive(answered, {"timestamp": 1, "clientToken": question["clientToken"]})

    inbox, _ = await conversation(tmp_path, talk)

    assert inbox.kept == [(frozenset(), None)]


def _record() -> deployments.Record:
    wanted = document.Document(deployment_id="d1", configuration_arn="arn", group="thinggroup/g", created_ms=1)
    return deployments.Record(document=wanted, source=deployments.JOB, carrier="j1")


async def rejected(tmp_path: Path, state: str, answer: dict[str, Any]) -> tuple[Inbox, Any]:
    async def talk(connection: Connection, source: listeners.JobSource) -> bool:
        await connection.published.get()
        async with asyncio.TaskGroup() as group:
            report = group.create_task(source.report(_record(), state, {}))
            _, update = await connection.published.get()
            connection.arrive(f"{jobs.update(THING, '+')}/rejected", {"clientToken": update["clientToken"], **answer})
        return report.result()

    return await conversation(tmp_path, talk)


async def test_update_when_rejected_because_the_job_was_cancelled_then_that_job_is_cancelled(tmp_path: Path) -> None:
    answer = {"code": "InvalidStateTransition", "executionState": {"status": "CANCELED"}}
    inbox, final = await rejected(tmp_path, "IN_PROGRESS", answer)

    assert (inbox.cancelled, final) == ([(deployments.JOB, "j1")], True)


async def test_update_when_rejected_without_a_state_then_terminal_means_cancelled_too(tmp_path: Path) -> None:
    inbox, _ = await rejected(tmp_path, "IN_PROGRESS", {"code": "TerminalStateReached"})

    assert inbox.cancelled == [(deployments.JOB, "j1")]


async def test_update_when_it_was_our_own_end_or_another_reason_then_nothing_is_cancelled(tmp_path: Path) -> None:
    own = {"code": "InvalidStateTransition", "executionState": {"status": "SUCCEEDED"}}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("IN_PROGRESS", own),
        ("IN_PROGRESS", {"code": "VersionMismatch"}),
        ("SUCCEEDED", {"code": "InvalidStateTransition"}),
    ]

    for state, answer in cases:
        inbox, _ = await rejected(tmp_path, state, answer)
        assert inbox.cancelled == []
