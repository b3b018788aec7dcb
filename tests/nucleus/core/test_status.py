"""Results and fleet status messages: codes, truncation, splitting."""

from __future__ import annotations

import json
from typing import Any

from nucleus.core import errors, progress, status
from nucleus.core.lifecycle import Health, State


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_failure_when_reported_then_stack_types_and_cut_to_1024() -> None:
    result = status.failure(progress.Failed(("COMPONENT_UPDATE_ERROR", "DISK_SPACE_CRITICAL"), "x" * 3000), "D")

    details = status.job_details(result)

    assert details["deployment-error-stack"] == "[DEPLOYMENT_FAILURE, COMPONENT_UPDATE_ERROR, DISK_SPACE_CRITICAL]"
    assert details["deployment-error-types"] == "[DEVICE_ERROR]"
    assert len(details["deployment-failure-cause"]) == 1024


def test_error_types_when_unknown_code_then_unknown_error() -> None:
    assert errors.error_types(["DEPLOYMENT_FAILURE", "NO_SUCH_CODE"]) == ("UNKNOWN_ERROR",)
    assert errors.CODES["ARTIFACT_CHECKSUM_MISMATCH"] == "COMPONENT_RECIPE_ERROR"


def test_messages_when_too_large_then_split_by_component_and_each_within_the_bound() -> None:
    entries = [{"componentName": f"c{number}", "reason": "x" * 900} for number in range(400)]

    payloads = status.messages({"thing": "t", "sequenceNumber": 7}, entries, encode)

    decoded = [json.loads(one) for one in payloads]
    assert len(payloads) > 1
    assert all(len(one) <= status.MAX_MESSAGE_BYTES for one in payloads)
    assert [one["chunkInfo"]["chunkId"] for one in decoded] == list(range(1, len(payloads) + 1))
    assert {one["sequenceNumber"] for one in decoded} == {7}
    assert [entry for one in decoded for entry in one["components"]] == entries


def test_messages_when_small_then_one_without_chunk_info() -> None:
    (payload,) = status.messages({"thing": "t"}, [], encode)

    assert "chunkInfo" not in json.loads(payload)


def test_overall_when_one_is_broken_then_unhealthy() -> None:
    fine = Health(name="a", version="1", state=State.ERRORED, settled=False)
    broken = Health(name="b", version="1", state=State.BROKEN, settled=True)

    assert status.overall([fine]) == "HEALTHY"
    assert status.overall([fine, broken]) == "UNHEALTHY"
