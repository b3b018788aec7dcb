"""Deployments on their way: who gets what, in which order, and what is written to the outbox with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy

from cloud.core import executions
from cloud.store import identities
from cloud.store import jobs as job_store
from nucleus.wire import jobs
from tests.cloud import fleet

NOW_MS = fleet.NOW_MS
GROUP = "thinggroup/G"


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlalchemy.Connection]:
    with fleet.opened(tmp_path) as store, store.begin() as connection:
        yield connection


def report(tx: sqlalchemy.Connection, thing: str, job_id: str, status: str, now_ms: int = NOW_MS) -> list[Any]:
    """A device's update; returns what was sent because of it."""
    job_store.apply_update(tx, thing, job_id, jobs.JobUpdate(status), now_ms)
    return fleet.drain(tx)


def next_job(tx: sqlalchemy.Connection, thing: str) -> Any:
    answer = job_store.get(tx, thing, "$next", with_document=True, token=None, now_ms=NOW_MS)
    return msgspec.json.decode(answer).get("execution")


def test_open_when_the_target_is_a_group_then_each_member_is_queued_and_told(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", "B", group="G")

    fleet.deploy(tx, GROUP)

    assert fleet.statuses(tx) == {("j1", "A"): "QUEUED", ("j1", "B"): "QUEUED"}
    sent = dict(fleet.drain(tx))
    assert sent[f"A/jobs/notify-namespace-{jobs.NAMESPACE}"]["jobs"]["QUEUED"][0]["jobId"] == "j1"
    told = sent[f"B/jobs/notify-next-namespace-{jobs.NAMESPACE}"]["execution"]
    assert (told["jobId"], told["jobDocument"]["deploymentId"]) == ("j1", "d1")
    assert fleet.deployment(tx, "d1") == ("ACTIVE", True)


def test_open_when_a_revision_follows_then_the_queued_one_before_it_is_cancelled(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    fleet.drain(tx)

    fleet.deploy(tx, GROUP, revision=2)

    assert fleet.statuses(tx) == {("j1", "A"): "CANCELED", ("j2", "A"): "QUEUED"}
    assert fleet.deployment(tx, "d1") == ("INACTIVE", False)
    (_, listed), (_, head) = fleet.drain(tx)
    assert [one["jobId"] for one in listed["jobs"]["QUEUED"]] == ["j2"]
    assert head["execution"]["jobId"] == "j2"


def test_open_when_the_one_before_is_in_progress_then_it_carries_on_and_the_new_one_is_next(
    tx: sqlalchemy.Connection,
) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    report(tx, "A", "j1", "IN_PROGRESS")

    fleet.deploy(tx, GROUP, revision=2)

    assert next_job(tx, "A")["jobId"] == "j1"
    report(tx, "A", "j1", "SUCCEEDED")
    assert next_job(tx, "A")["jobId"] == "j2"


def test_open_when_two_follow_within_a_second_then_queued_at_still_grows(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    first = next_job(tx, "A")["queuedAt"]

    fleet.deploy(tx, GROUP, revision=2)

    assert next_job(tx, "A")["queuedAt"] == first + 1


def test_update_when_a_device_begins_then_nobody_is_notified(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    fleet.drain(tx)

    sent = report(tx, "A", "j1", "IN_PROGRESS")

    assert [topic for topic, _ in sent] == [f"A/jobs/j1/namespace-{jobs.NAMESPACE}/update/accepted"]


def test_update_when_the_last_one_ends_then_the_empty_list_is_told(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    fleet.drain(tx)

    sent = dict(report(tx, "A", "j1", "SUCCEEDED"))

    assert sent[f"A/jobs/notify-namespace-{jobs.NAMESPACE}"]["jobs"] == {}
    assert "execution" not in sent[f"A/jobs/notify-next-namespace-{jobs.NAMESPACE}"]
    assert fleet.deployment(tx, "d1") == ("ACTIVE", True)


def test_update_when_it_had_ended_then_it_is_rejected_and_nothing_changes(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    report(tx, "A", "j1", "SUCCEEDED")

    sent = dict(report(tx, "A", "j1", "FAILED"))

    rejected = sent[f"A/jobs/j1/namespace-{jobs.NAMESPACE}/update/rejected"]
    assert rejected["code"] == "InvalidStateTransition"
    assert rejected["executionState"]["status"] == "SUCCEEDED"
    assert fleet.statuses(tx) == {("j1", "A"): "SUCCEEDED"}


def test_cancel_when_some_began_then_only_the_others_are_stopped_and_told(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", "B", group="G")
    fleet.deploy(tx, GROUP)
    report(tx, "A", "j1", "IN_PROGRESS")

    job_store.cancel_deployment(tx, "d1", NOW_MS)

    assert fleet.statuses(tx) == {("j1", "A"): "IN_PROGRESS", ("j1", "B"): "CANCELED"}
    assert fleet.deployment(tx, "d1") == ("CANCELED", True)
    sent = dict(fleet.drain(tx))
    assert sent[f"B/jobs/notify-namespace-{jobs.NAMESPACE}"]["jobs"] == {}
    assert not [topic for topic in sent if topic.startswith("A/")]


def test_cancel_when_it_is_not_active_then_nothing_happens(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    fleet.deploy(tx, GROUP, revision=2)

    job_store.cancel_deployment(tx, "d1", NOW_MS)

    assert fleet.deployment(tx, "d1") == ("INACTIVE", False)
    assert fleet.statuses(tx)[("j2", "A")] == "QUEUED"


def test_joined_when_a_thing_comes_later_then_it_gets_the_newest_revision_only(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    fleet.deploy(tx, GROUP, revision=2)
    fleet.drain(tx)
    fleet.populate(tx, "B")
    identities.add_member(tx, "G", "B", NOW_MS)

    job_store.thing_joined(tx, "G", "B", NOW_MS)

    assert {job: status for (job, thing), status in fleet.statuses(tx).items() if thing == "B"} == {"j2": "QUEUED"}
    assert {topic.split("/")[0] for topic, _ in fleet.drain(tx)} == {"B"}


def test_joined_when_the_group_above_has_a_deployment_then_the_thing_gets_it(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, group="G")
    identities.create_group(tx, "inner", "G", "", {}, now_ms=NOW_MS)
    fleet.populate(tx, "A")
    fleet.deploy(tx, GROUP)
    identities.add_member(tx, "inner", "A", NOW_MS)

    job_store.thing_joined(tx, "inner", "A", NOW_MS)

    assert fleet.statuses(tx) == {("j1", "A"): "QUEUED"}


def test_joined_when_names_differ_by_case_or_kind_then_nothing_is_confused(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", "g", group="G")
    identities.create_group(tx, "g", None, "", {}, now_ms=NOW_MS)
    fleet.deploy(tx, GROUP)
    fleet.populate(tx, "B")

    job_store.thing_joined(tx, "g", "B", NOW_MS)

    assert ("j1", "B") not in fleet.statuses(tx)


def test_left_when_it_was_not_finished_then_it_is_removed_and_a_return_starts_again(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", group="G")
    fleet.deploy(tx, GROUP)
    identities.remove_member(tx, "G", "A")

    job_store.thing_left(tx, "G", "A", NOW_MS)

    assert fleet.statuses(tx) == {("j1", "A"): "REMOVED"}
    assert next_job(tx, "A") is None
    fleet.drain(tx)
    identities.add_member(tx, "G", "A", NOW_MS)
    job_store.thing_joined(tx, "G", "A", NOW_MS)
    again = next_job(tx, "A")
    assert (again["status"], again["executionNumber"]) == ("QUEUED", 2)
    assert len(fleet.drain(tx)) == 2


def test_connected_when_something_waits_then_the_device_is_told_again(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, "A", "B", group="G")
    fleet.deploy(tx, GROUP)
    report(tx, "B", "j1", "SUCCEEDED")

    job_store.device_connected(tx, "A", NOW_MS)
    job_store.device_connected(tx, "B", NOW_MS)

    assert {topic.split("/")[0] for topic, _ in fleet.drain(tx)} == {"A"}


def test_open_when_a_group_is_large_then_every_member_is_served(tx: sqlalchemy.Connection) -> None:
    fleet.populate(tx, *(f"t{number:04}" for number in range(1200)), group="G")

    fleet.deploy(tx, GROUP)

    assert set(fleet.statuses(tx).values()) == {executions.QUEUED}
    assert len(fleet.statuses(tx)) == 1200


def test_open_when_the_deployment_is_unknown_then_it_says_so(tx: sqlalchemy.Connection) -> None:
    with pytest.raises(LookupError, match="nowhere"):
        job_store.open_deployment(tx, "nowhere", NOW_MS)
