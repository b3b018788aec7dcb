"""Recorded payloads of both nuclei, and the rules of order, parts and reasons."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud.core import fleet_status, rollout

JAVA = b"""{"ggcVersion":"2.18.0","platform":"linux","architecture":"amd64","thing":"T","overallDeviceStatus":"HEALTHY",
"sequenceNumber":41,"timestamp":1700000000123,"messageType":"COMPLETE","trigger":"NUCLEUS_LAUNCH",
"components":[{"componentName":"com.example.Hello","version":"1.0.1",
"fleetConfigArns":["arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/G:1"],
"componentStatusDetails":null,"isRoot":true,"status":"RUNNING"}]}"""
LITE = b"""{"ggcVersion":"2.6.0","platform":"linux","architecture":"aarch64","runtime":"aws_nucleus_lite","thing":"T",
"overallDeviceStatus":"HEALTHY","sequenceNumber":7.0,"timestamp":1700000000123,"messageType":"PARTIAL",
"trigger":"COMPONENT_STATUS_CHANGE","chunkInfo":{},"deploymentInformation":{},
"components":[{"componentName":"com.example.Hello","version":"","fleetConfigArns":[],"isRoot":true,
"status":"UNINSTALLED"}]}"""


def message(**members: Any) -> fleet_status.Message:
    return msgspec.convert(members, fleet_status.Message)


@pytest.mark.parametrize(
    ("payload", "runtime", "state"),
    [(JAVA, "aws_nucleus_classic", "RUNNING"), (LITE, "aws_nucleus_lite", "UNINSTALLED")],
)
def test_read_when_a_nucleus_reports_then_its_variant_is_understood(payload: bytes, runtime: str, state: str) -> None:
    read = fleet_status.read(payload)

    assert isinstance(read, fleet_status.Message)
    assert read.runtime == runtime
    assert read.components is not None
    assert read.components[0].status == state
    assert read.chunk() == fleet_status.Chunk(1, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"sequenceNumber":"many"}',
        b'{"chunkInfo":{"chunkId":3,"totalChunks":2}}',
        b'{"chunkInfo":{"chunkId":1,"totalChunks":100000}}',
    ],
)
def test_read_when_the_payload_is_no_status_then_it_is_refused(payload: bytes) -> None:
    assert isinstance(fleet_status.read(payload), fleet_status.Refused)


@pytest.mark.parametrize(
    ("members", "news"),
    [
        ({"sequenceNumber": 11, "timestamp": 1}, True),
        ({"sequenceNumber": 10, "timestamp": 900}, False),  # the same message twice
        ({"sequenceNumber": 10, "timestamp": 900, "chunkInfo": {"chunkId": 2, "totalChunks": 2}}, True),
        ({"sequenceNumber": 9, "timestamp": 2000}, False),  # overtaken
        ({"sequenceNumber": 1, "timestamp": 900}, True),  # installed anew
        ({"sequenceNumber": 5, "timestamp": 2000, "messageType": "COMPLETE"}, True),
        ({"sequenceNumber": 5, "timestamp": 900, "messageType": "COMPLETE"}, False),
    ],
)
def test_is_news_when_numbers_repeat_fall_or_restart_then_only_news_is_taken(
    members: dict[str, Any], news: bool
) -> None:
    assert fleet_status.is_news(message(**members), last_sequence=10, last_ms=1000) is news


def test_assemble_when_a_part_is_missing_then_nothing_comes_of_it() -> None:
    parts = [
        message(components=[{"componentName": name}], chunkInfo={"chunkId": number, "totalChunks": 2})
        for number, name in ((2, "b"), (1, "a"))
    ]

    whole = fleet_status.assemble(parts)

    assert fleet_status.assemble(parts[:1]) is None
    assert whole is not None
    assert whole.components is not None
    assert [one.component_name for one in whole.components] == ["a", "b"]


@pytest.mark.parametrize(
    ("details", "reason", "stack"),
    [
        ({"detailed-deployment-status": "SUCCESSFUL"}, "SUCCESSFUL", []),
        (
            {
                "detailed-deployment-status": "FAILED_ROLLBACK_COMPLETE",
                "deployment-failure-cause": "it broke",
                "deployment-error-stack": "[DEPLOYMENT_FAILURE, COMPONENT_BROKEN]",
            },
            "COMPONENT_BROKEN: FAILED_ROLLBACK_COMPLETE: it broke",
            ["DEPLOYMENT_FAILURE", "COMPONENT_BROKEN"],
        ),
        ({"deployment-error-stack": '["A","B"]'}, "B", ["A", "B"]),
        ({"detailedStatus": "REJECTED", "errorStack": ["A"]}, "A: REJECTED", ["A"]),
        ({"detailedStatus": "SUCCESSFUL", "failureCause": None, "errorStack": None}, "SUCCESSFUL", []),
        ({}, "", []),
    ],
)
def test_outcome_when_details_come_from_jobs_or_shadows_then_the_reason_reads_the_same(
    details: dict[str, Any], reason: str, stack: list[str]
) -> None:
    told, errors = fleet_status.outcome(details)

    assert told == reason
    assert errors["errorStack"] == stack


@pytest.mark.parametrize(
    ("arn", "named"),
    [
        (
            "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/G:12",
            ("arn:aws:iot:us-east-1:123456789012:thinggroup/G", 12),
        ),
        ("arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/G:x", None),
        ("arn:aws:greengrass:us-east-1:123456789012:components:a:1", None),
        ("", None),
    ],
)
def test_configuration_when_an_arn_names_a_revision_then_target_and_number_are_found(
    arn: str, named: tuple[str, int] | None
) -> None:
    assert rollout.configuration(arn) == named


@pytest.mark.parametrize("arn", ["", "arn:aws:iot:r:1:cert/x", "arn:aws:iot:r:1:thing/", "arn:aws:s3:::thing/x"])
def test_target_when_an_arn_is_neither_thing_nor_group_then_it_is_refused(arn: str) -> None:
    with pytest.raises(ValueError, match="cannot deploy to"):
        rollout.target(arn)
