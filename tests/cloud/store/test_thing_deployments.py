"""A thing's deployment: out through the shadow, back through its reported part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy

from cloud.store import fleet as fleet_store
from cloud.store import jobs as job_store
from cloud.store import shadows, thing_deployments
from nucleus.core import shadow
from nucleus.wire import jobs
from tests.cloud import fleet

NOW_MS = fleet.NOW_MS
THING = "thing/T"
ARN = "arn:aws:greengrass:us-east-1:123456789012:configuration:thing/T:1"


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlalchemy.Connection]:
    with fleet.opened(tmp_path) as store, store.begin() as connection:
        fleet.populate(connection, "T")
        yield connection


def desired(tx: sqlalchemy.Connection) -> dict[str, Any]:
    held = shadows.find(tx, "T", jobs.SHADOW)
    assert held is not None
    section: dict[str, Any] = held.state["desired"]
    return section


def report(tx: sqlalchemy.Connection, status: str, **details: Any) -> None:
    section = {"fleetConfigurationArnForStatus": ARN, "status": status, "statusDetails": details}
    thing_deployments.reported(tx, "T", section, NOW_MS + 1000)


def effective(tx: sqlalchemy.Connection) -> list[str]:
    return [one["coreDeviceExecutionStatus"] for one in fleet_store.effective_deployments(tx, "T")]


def test_open_when_the_target_is_a_thing_then_its_shadow_desires_the_document_as_a_string(
    tx: sqlalchemy.Connection,
) -> None:
    fleet.deploy(tx, THING)

    assert desired(tx)["desiredStatus"] == "SUCCEEDED"
    assert msgspec.json.decode(desired(tx)["fleetConfig"])["deploymentId"] == "d1"
    sent = dict(fleet.drain(tx))
    accepted = sent[f"T/shadow/name/{jobs.SHADOW}/update/accepted"]
    assert accepted["state"]["desired"] == desired(tx)
    assert (accepted["version"], accepted["timestamp"]) == (1, NOW_MS // 1000)
    assert effective(tx) == ["QUEUED"]


@pytest.mark.parametrize(
    ("reported", "effectively", "deployment"),
    [
        ("IN_PROGRESS", "IN_PROGRESS", "ACTIVE"),
        ("SUCCEEDED", "COMPLETED", "COMPLETED"),
        ("FAILED", "FAILED", "FAILED"),
        ("REJECTED", "REJECTED", "FAILED"),
        ("CANCELED", "CANCELED", "CANCELED"),
    ],
)
def test_reported_when_the_device_tells_a_status_then_the_api_shows_its_word(
    tx: sqlalchemy.Connection, reported: str, effectively: str, deployment: str
) -> None:
    fleet.deploy(tx, THING)

    report(tx, reported, detailedStatus="SUCCESSFUL")

    shape = fleet_store.effective_deployments(tx, "T")[0]
    assert shape["coreDeviceExecutionStatus"] == effectively
    assert shape["reason"] == "SUCCESSFUL"
    assert shape["modifiedTimestamp"] == NOW_MS / 1000 + 1
    assert "iotJobId" not in shape
    assert fleet.deployment(tx, "d1")[0] == deployment


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"fleetConfigurationArnForStatus": 5, "status": "SUCCEEDED"},
        {"fleetConfigurationArnForStatus": ARN.replace("T:1", "T:9"), "status": "SUCCEEDED"},
        {"fleetConfigurationArnForStatus": ARN.replace("T:1", "other:1"), "status": "SUCCEEDED"},
        {"fleetConfigurationArnForStatus": ARN, "status": None},
        None,
    ],
)
def test_reported_when_it_names_no_deployment_of_the_thing_then_nothing_changes(
    tx: sqlalchemy.Connection, section: Any
) -> None:
    fleet.deploy(tx, THING)

    thing_deployments.reported(tx, "T", section, NOW_MS)

    assert effective(tx) == ["QUEUED"]


def test_open_when_a_revision_follows_then_the_first_is_cancelled(tx: sqlalchemy.Connection) -> None:
    fleet.deploy(tx, THING)

    fleet.deploy(tx, THING, revision=2, now_ms=NOW_MS + 1)

    assert effective(tx) == ["QUEUED", "CANCELED"]
    assert fleet.deployment(tx, "d1") == ("INACTIVE", False)
    assert msgspec.json.decode(desired(tx)["fleetConfig"])["deploymentId"] == "d2"


def test_cancel_when_the_device_did_not_begin_then_it_is_cancelled_and_desired_so(tx: sqlalchemy.Connection) -> None:
    fleet.deploy(tx, THING)

    job_store.cancel_deployment(tx, "d1", NOW_MS)

    assert desired(tx)["desiredStatus"] == "CANCELED"
    assert effective(tx) == ["CANCELED"]
    assert fleet.deployment(tx, "d1")[0] == "CANCELED"


def test_cancel_when_the_device_began_then_its_own_report_decides(tx: sqlalchemy.Connection) -> None:
    fleet.deploy(tx, THING)
    report(tx, "IN_PROGRESS")

    job_store.cancel_deployment(tx, "d1", NOW_MS)
    assert effective(tx) == ["IN_PROGRESS"]
    report(tx, "SUCCEEDED")

    assert effective(tx) == ["COMPLETED"]


def test_write_when_the_document_fills_the_limit_then_the_device_can_still_report(tx: sqlalchemy.Connection) -> None:
    large = shadow.Request({"desired": {"fleetConfig": "x" * 20_000}})

    ours = shadows.write(tx, "T", jobs.SHADOW, large, NOW_MS, by_service=True)
    theirs = shadows.write(tx, "T", jobs.SHADOW, shadow.Request({"reported": {"status": "SUCCEEDED"}}), NOW_MS)
    another = shadows.write(tx, "T", "other", large, NOW_MS)

    assert isinstance(ours, shadow.Shadow)
    assert isinstance(theirs, shadow.Shadow)
    assert isinstance(another, shadow.Refused)


def test_remove_when_a_shadow_was_deleted_then_its_version_goes_on(tx: sqlalchemy.Connection) -> None:
    request = shadow.Request({"desired": {"a": 1}})
    shadows.write(tx, "T", "", request, NOW_MS)

    assert shadows.remove(tx, "T", "", NOW_MS) == 1
    assert shadows.remove(tx, "T", "", NOW_MS) is None
    after = shadows.write(tx, "T", "", request, NOW_MS)

    assert isinstance(after, shadow.Shadow)
    assert after.version == 3
    assert shadows.names(tx, "T") == []
