"""Tables of the rules of job executions and the bytes that announce them."""

from __future__ import annotations

import msgspec
import pytest

from cloud.core import executions
from nucleus.wire import jobs


def execution(
    job_id: str = "j1", status: str = "QUEUED", queued_ms: int = 1000, version: int = 1, number: int = 1
) -> executions.Execution:
    return executions.Execution(
        job_id=job_id,
        thing="T",
        deployment_id="d1",
        status=status,
        details={"k": "v"},
        queued_ms=queued_ms,
        started_ms=None,
        updated_ms=1000,
        version=version,
        number=number,
    )


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ("QUEUED", "IN_PROGRESS", "IN_PROGRESS"),
        ("QUEUED", "SUCCEEDED", "SUCCEEDED"),
        ("QUEUED", "REJECTED", "REJECTED"),
        ("IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS"),
        ("IN_PROGRESS", "FAILED", "FAILED"),
        ("IN_PROGRESS", "QUEUED", "InvalidRequest"),
        ("IN_PROGRESS", "CANCELED", "InvalidRequest"),
        ("IN_PROGRESS", "FAILURE", "InvalidRequest"),  # a slip of nucleus lite
        ("SUCCEEDED", "IN_PROGRESS", "InvalidStateTransition"),
        ("FAILED", "FAILED", "InvalidStateTransition"),
        ("CANCELED", "SUCCEEDED", "InvalidStateTransition"),
        ("REMOVED", "SUCCEEDED", "InvalidStateTransition"),
    ],
)
def test_apply_when_a_device_asks_then_only_legal_changes_happen(before: str, asked: str, after: str) -> None:
    result = executions.apply(execution(status=before), jobs.JobUpdate(asked), 5000)

    assert after == (result.code if isinstance(result, executions.Refused) else result.status)


def test_apply_when_accepted_then_version_and_times_advance_and_details_stay() -> None:
    result = executions.apply(execution(), jobs.JobUpdate("IN_PROGRESS"), 5000)

    assert isinstance(result, executions.Execution)
    assert (result.version, result.started_ms, result.updated_ms, result.details) == (2, 5000, 5000, {"k": "v"})


def test_apply_when_details_are_given_then_they_replace_the_old_ones_cut_to_the_limit() -> None:
    result = executions.apply(execution(), jobs.JobUpdate("FAILED", {"cause": "x" * 5000}), 5000)

    assert isinstance(result, executions.Execution)
    assert result.details == {"cause": "x" * 1024}


def test_apply_when_another_version_is_expected_then_it_is_refused() -> None:
    result = executions.apply(execution(version=3), jobs.JobUpdate("IN_PROGRESS", expected_version=2), 5000)

    assert isinstance(result, executions.Refused)
    assert result.code == "VersionMismatch"


def test_apply_when_there_is_no_execution_then_it_is_not_found() -> None:
    result = executions.apply(None, jobs.JobUpdate("IN_PROGRESS"), 5000)

    assert isinstance(result, executions.Refused)
    assert result.code == "ResourceNotFound"


def test_in_order_when_one_is_in_progress_then_it_comes_before_older_queued_ones() -> None:
    listed = [
        execution("young", queued_ms=3000),
        execution("running", "IN_PROGRESS", queued_ms=2000),
        execution("old", queued_ms=1000),
    ]

    assert [one.job_id for one in executions.in_order(listed)] == ["running", "old", "young"]


@pytest.mark.parametrize(
    ("now_ms", "last_ms", "queued_ms"), [(5000, 0, 5000), (5999, 5000, 6000), (5000, 7000, 8000), (9000, 8999, 9000)]
)
def test_queue_time_when_another_was_queued_before_then_it_is_at_least_a_second_later(
    now_ms: int, last_ms: int, queued_ms: int
) -> None:
    assert executions.queue_time(now_ms, last_ms) == queued_ms


@pytest.mark.parametrize(
    ("before", "after", "listed", "head"),
    [
        ([], [execution()], True, True),
        ([execution()], [], True, True),
        ([execution()], [execution(status="IN_PROGRESS")], False, False),
        ([execution("a")], [execution("a"), execution("b")], True, False),
        ([execution("a")], [execution("b")], True, True),
        ([execution(number=1)], [execution(number=2)], True, True),
    ],
)
def test_changes_when_the_pending_list_moves_then_list_and_head_are_told_apart(
    before: list[executions.Execution], after: list[executions.Execution], listed: bool, head: bool
) -> None:
    assert executions.list_changed(before, after) is listed
    assert executions.head_changed(before, after) is head


def test_notify_when_nothing_is_pending_then_jobs_is_an_empty_object() -> None:
    assert executions.notify([], 1_700_000_000_999) == b'{"timestamp":1700000000,"jobs":{}}'


def test_notify_when_many_are_pending_then_ten_are_listed_by_state() -> None:
    many = [execution("running", "IN_PROGRESS"), *(execution(f"j{number}") for number in range(20))]

    told = msgspec.json.decode(executions.notify(many, 1000))

    assert [one["jobId"] for one in told["jobs"]["IN_PROGRESS"]] == ["running"]
    assert len(told["jobs"]["QUEUED"]) == 9


def test_next_answer_when_an_execution_is_next_then_every_member_is_written_with_whole_seconds() -> None:
    told = msgspec.json.decode(executions.next_answer(execution(), b'{"deploymentId":"d1"}', "tok", 2500))

    assert told == {
        "timestamp": 2,
        "clientToken": "tok",
        "execution": {
            "jobId": "j1",
            "thingName": "T",
            "status": "QUEUED",
            "statusDetails": {"k": "v"},
            "queuedAt": 1,
            "lastUpdatedAt": 1,
            "versionNumber": 1,
            "executionNumber": 1,
            "jobDocument": {"deploymentId": "d1"},
        },
    }
    assert isinstance(told["execution"]["queuedAt"], int)


def test_next_answer_when_read_by_the_devices_codec_then_it_is_the_same_execution() -> None:
    answer = jobs.read_next(executions.next_answer(execution(), b"{}", None, 2500))

    assert answer.execution is not None
    assert (answer.execution.job_id, answer.execution.queued_at) == ("j1", 1)


def test_update_answer_when_the_state_was_asked_for_then_it_is_there() -> None:
    request = jobs.JobUpdate("IN_PROGRESS", include_job_execution_state=True, client_token="c")

    told = msgspec.json.decode(executions.update_answer(execution(), request, None, 1000))

    assert told["executionState"] == {"status": "QUEUED", "statusDetails": {"k": "v"}, "versionNumber": 1}
    assert told["clientToken"] == "c"


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"[]", b'{"clientToken":5}', b"[" * 100_000])
def test_client_token_when_the_payload_has_none_then_it_is_none(payload: bytes) -> None:
    assert executions.client_token(payload) is None
