"""Fleet status in, core devices and installed components out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy

from cloud.store import fleet as fleet_store
from cloud.store import jobs as job_store
from nucleus.wire import jobs
from tests.cloud import fleet
from tests.cloud.core import test_fleet_status as recorded

NOW_MS = fleet.NOW_MS
GROUP_ARN = f"{fleet.ACCOUNT}:thinggroup/G"


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[sqlalchemy.Connection]:
    with fleet.opened(tmp_path) as store, store.begin() as connection:
        fleet.populate(connection, "T", group="G")
        yield connection


def ingest(tx: sqlalchemy.Connection, sequence: int, *components: tuple[str, str], **members: Any) -> str:
    """A message with components of (name, state), each a root at 1.0.0."""
    listed = [
        {"componentName": name, "version": "1.0.0", "status": state, "isRoot": True} for name, state in components
    ]
    message = {"sequenceNumber": sequence, "timestamp": NOW_MS + sequence * 1000, "components": listed, **members}
    return fleet_store.ingest(tx, "T", msgspec.json.encode(message), NOW_MS)


def installed(tx: sqlalchemy.Connection) -> dict[str, str]:
    listed = fleet_store.installed_components(tx, "T", roots_only=False)
    return {one["componentName"]: one["lifecycleState"] for one in listed}


def test_ingest_when_the_java_nucleus_launches_then_device_and_component_have_the_api_shape(
    tx: sqlalchemy.Connection,
) -> None:
    fleet.deploy(tx, "thinggroup/G")

    assert fleet_store.ingest(tx, "T", recorded.JAVA, NOW_MS) == ""

    assert fleet_store.core_device(tx, "T") == {
        "coreDeviceThingName": "T",
        "coreVersion": "2.18.0",
        "platform": "linux",
        "architecture": "amd64",
        "runtime": "aws_nucleus_classic",
        "status": "HEALTHY",
        "lastStatusUpdateTimestamp": 1700000000.123,
    }
    assert fleet_store.installed_components(tx, "T", roots_only=True) == [
        {
            "componentName": "com.example.Hello",
            "componentVersion": "1.0.1",
            "lifecycleState": "RUNNING",
            "lifecycleStateDetails": "",
            "isRoot": True,
            "lastStatusChangeTimestamp": 1700000000.123,
            "lastReportedTimestamp": 1700000000.123,
            "lastInstallationSource": "d1",
            "lifecycleStatusCodes": [],
        }
    ]


def test_ingest_when_lite_says_uninstalled_then_the_component_is_gone(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 6, ("com.example.Hello", "RUNNING"), ("other", "RUNNING"))

    fleet_store.ingest(tx, "T", recorded.LITE, NOW_MS)

    assert installed(tx) == {"other": "RUNNING"}
    device = fleet_store.core_device(tx, "T")
    assert device is not None
    assert device["runtime"] == "aws_nucleus_lite"


def test_ingest_when_complete_then_the_set_is_replaced_and_when_partial_it_grows(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 1, ("a", "RUNNING"), ("b", "RUNNING"), messageType="COMPLETE")
    ingest(tx, 2, ("b", "ERRORED"), ("c", "NEW"))
    assert installed(tx) == {"a": "RUNNING", "b": "ERRORED", "c": "NEW"}

    ingest(tx, 3, ("c", "RUNNING"), messageType="COMPLETE")

    assert installed(tx) == {"c": "RUNNING"}


def test_ingest_when_repeated_or_overtaken_then_it_changes_nothing_and_says_why(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 5, ("a", "RUNNING"))

    assert "not newer" in ingest(tx, 5, ("a", "BROKEN"))
    assert "not newer" in ingest(tx, 4, ("a", "BROKEN"))

    assert installed(tx) == {"a": "RUNNING"}


def test_ingest_when_installed_anew_then_the_numbers_may_start_again(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 500, ("a", "RUNNING"))

    ingest(tx, 1, ("b", "RUNNING"), messageType="COMPLETE")
    ingest(tx, 2, ("c", "RUNNING"))

    assert installed(tx) == {"b": "RUNNING", "c": "RUNNING"}


def test_ingest_when_complete_comes_in_parts_then_it_counts_once_all_are_there(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 1, ("old", "RUNNING"))
    parts: list[dict[str, Any]] = [
        {"messageType": "COMPLETE", "chunkInfo": {"chunkId": number, "totalChunks": 2}} for number in (1, 2)
    ]

    ingest(tx, 2, ("b", "RUNNING"), **parts[1])
    ingest(tx, 2, ("b", "RUNNING"), **parts[1])
    assert installed(tx) == {"old": "RUNNING"}
    ingest(tx, 2, ("a", "RUNNING"), **parts[0])

    assert installed(tx) == {"a": "RUNNING", "b": "RUNNING"}


def test_ingest_when_a_partial_comes_in_parts_then_each_counts(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 2, ("a", "RUNNING"), chunkInfo={"chunkId": 1, "totalChunks": 2})
    ingest(tx, 2, ("b", "RUNNING"), chunkInfo={"chunkId": 2, "totalChunks": 2})

    assert installed(tx) == {"a": "RUNNING", "b": "RUNNING"}


def test_ingest_when_only_the_report_repeats_then_the_time_of_change_stays(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 1, ("a", "RUNNING"))
    ingest(tx, 2, ("a", "RUNNING"))

    (component,) = fleet_store.installed_components(tx, "T", roots_only=False)

    assert component["lastStatusChangeTimestamp"] == NOW_MS / 1000 + 1
    assert component["lastReportedTimestamp"] == NOW_MS / 1000 + 2
    assert component["lastInstallationSource"] == "LOCAL"


def test_ingest_when_a_component_is_broken_then_codes_and_reason_are_kept(tx: sqlalchemy.Connection) -> None:
    details = {"statusCodes": ["STARTUP_ERROR"], "statusReason": "x" * 2000}
    listed = [{"componentName": "a", "version": "1", "status": "BROKEN", "componentStatusDetails": details}]
    message = {"sequenceNumber": 1, "overallDeviceStatus": "UNHEALTHY", "components": listed}

    fleet_store.ingest(tx, "T", msgspec.json.encode(message), NOW_MS)

    (component,) = fleet_store.installed_components(tx, "T", roots_only=False)
    assert component["lifecycleStatusCodes"] == ["STARTUP_ERROR"]
    assert component["lifecycleStateDetails"] == "x" * 1000
    assert fleet_store.core_devices(tx, status="HEALTHY") == []
    assert fleet_store.installed_components(tx, "T", roots_only=True) == []


def test_ingest_when_lite_tells_why_only_here_then_the_effective_deployment_shows_it(
    tx: sqlalchemy.Connection,
) -> None:
    fleet.deploy(tx, "thinggroup/G")
    job_store.apply_update(tx, "T", "j1", jobs.JobUpdate("FAILED"), NOW_MS)
    why = {"detailedStatus": "FAILED_NO_STATE_CHANGE", "failureCause": "no disk", "errorStack": ["DISK_SPACE_CRITICAL"]}

    ingest(tx, 1, deploymentInformation={"deploymentId": "d1", "status": "FAILED", "statusDetails": why})

    (shape,) = fleet_store.effective_deployments(tx, "T")
    assert shape["coreDeviceExecutionStatus"] == "FAILED"
    assert shape["reason"] == "DISK_SPACE_CRITICAL: FAILED_NO_STATE_CHANGE: no disk"
    assert shape["statusDetails"] == {"errorStack": ["DISK_SPACE_CRITICAL"], "errorTypes": []}
    assert shape["iotJobArn"] == f"{fleet.ACCOUNT}:job/j1"


def test_core_devices_when_filtered_by_group_then_only_those_that_succeeded_are_listed(
    tx: sqlalchemy.Connection,
) -> None:
    ingest(tx, 1)
    fleet.deploy(tx, "thinggroup/G")
    assert fleet_store.core_devices(tx, group_arn=GROUP_ARN) == []

    job_store.apply_update(tx, "T", "j1", jobs.JobUpdate("SUCCEEDED"), NOW_MS)

    assert [one["coreDeviceThingName"] for one in fleet_store.core_devices(tx, group_arn=GROUP_ARN)] == ["T"]
    assert fleet_store.core_devices(tx, runtime="aws_nucleus_lite") == []
    assert fleet_store.core_devices(tx, after="T") == []


def test_forget_when_a_record_is_removed_then_the_next_message_makes_it_again(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 7, ("a", "RUNNING"))

    assert fleet_store.forget(tx, "T")
    assert not fleet_store.forget(tx, "T")
    assert fleet_store.core_device(tx, "T") is None
    assert ingest(tx, 3, ("a", "RUNNING")) == ""

    assert installed(tx) == {"a": "RUNNING"}


def test_mode_when_told_then_kept_beside_the_api_shape_and_gone_with_the_next_message_without_it(
    tx: sqlalchemy.Connection,
) -> None:
    ingest(tx, 1)
    usual = fleet_store.core_device(tx, "T")
    ingest(tx, 2, marram={"mode": "SAFE_MODE", "reason": "the way back looped"})
    told, shape = fleet_store.modes(tx), fleet_store.core_device(tx, "T")
    ingest(tx, 3)

    assert told == [{"thing": "T", "mode": "SAFE_MODE", "reason": "the way back looped"}]
    assert usual is not None
    assert shape is not None
    assert shape.keys() == usual.keys()
    assert fleet_store.modes(tx) == []


def test_mode_when_the_device_is_forgotten_then_gone(tx: sqlalchemy.Connection) -> None:
    ingest(tx, 1, marram={"mode": "SAFE_MODE", "reason": "r"})

    assert fleet_store.forget(tx, "T")
    assert fleet_store.modes(tx) == []
