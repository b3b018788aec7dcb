"""What a component asks for under its key `marram`, and what answers of a probe mean."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import care, component, health, progress


def test_read_when_nothing_is_asked_for_then_as_the_original_does() -> None:
    assert care.read(None) == care.read({"other": 1}) == care.Care()


def test_read_when_all_is_given_then_all_is_read_also_numbers_as_text() -> None:
    found = care.read(
        {
            "healthCheck": {"http": "http://127.0.0.1:80/h", "intervalSeconds": "2", "failureThreshold": 1},
            "readiness": {"tcp": "127.0.0.1:90", "deadlineSeconds": 7},
            "restartPolicy": {"backoffSeconds": 1, "maxBackoffSeconds": 4, "maxFailures": 9, "resetSeconds": 60},
            "rollbackState": {"paths": ["data/", "a/b"], "maxBytes": 10},
        }
    )

    assert found.health_check == care.Probe("http", "http://127.0.0.1:80/h", 2.0, failure_threshold=1)
    assert found.readiness == care.Probe("tcp", "127.0.0.1:90", 1.0, deadline_s=7.0)
    assert found.restart == care.RestartPolicy(1.0, 4.0, 9, 60.0)
    assert found.rollback_state == care.RollbackState(("data", "a/b"), 10)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("text", "marram must be an object"),
        ({"healthCheck": {}}, "marram.healthCheck must have exactly one of exec, http, tcp, heartbeat"),
        ({"healthCheck": {"tcp": "h:1", "exec": "true"}}, "exactly one"),
        ({"healthCheck": {"tcp": "127.0.0.1"}}, "marram.healthCheck.tcp must be host:port"),
        ({"healthCheck": {"tcp": "127.0.0.1:99999"}}, "must be host:port"),
        ({"healthCheck": {"http": "https://h/"}}, "must be http://"),
        ({"healthCheck": {"http": "http://h/a b\r\nX: 1"}}, "must be http://"),
        ({"healthCheck": {"heartbeat": True, "intervalSeconds": 0}}, "intervalSeconds must be a number from 0.1"),
        ({"healthCheck": {"heartbeat": True, "failureThreshold": True}}, "failureThreshold must be a number"),
        ({"readiness": {"heartbeat": True}}, "exactly one of exec, http, tcp$"),
        ({"restartPolicy": {"maxFailures": 0}}, "maxFailures must be a number from 1"),
        ({"restartPolicy": {"backoffSeconds": "nan"}}, "backoffSeconds must be a number"),
        ({"rollbackState": {"paths": []}}, "rollbackState.paths must be a list"),
        ({"rollbackState": {"paths": ["../x"]}}, "not a path below the work folder"),
        ({"rollbackState": {"paths": ["/etc"]}}, "not a path below the work folder"),
        ({"rollbackState": {"paths": ["."]}}, "not a path below the work folder"),
        ({"rollbackState": {"paths": ["a", "a/b"]}}, "lies in another"),
    ],
)
def test_read_when_not_valid_then_the_key_is_named(data: Any, why: str) -> None:
    with pytest.raises(care.NotValid, match=why):
        care.read(data)


def test_pause_when_errors_follow_each_other_then_it_doubles_up_to_the_greatest_and_counts_from_the_last() -> None:
    policy = care.RestartPolicy(backoff_s=1.0, max_backoff_s=3.0)

    assert [care.pause_s(policy, {"RUNNING": (10.0,) * count}, 10.0) for count in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert care.pause_s(policy, {"RUNNING": (5.0, 10.0)}, 11.5) == 0.5
    assert care.pause_s(policy, {"RUNNING": (5.0, 10.0)}, 999.0) == 0.0
    assert care.pause_s(care.RestartPolicy(), {"RUNNING": (10.0,)}, 10.0) == 0.0


PROBE = care.Probe("tcp", "h:1", 1.0, failure_threshold=2, start_period_s=10.0)


def test_judge_when_failures_are_not_in_a_row_then_healthy() -> None:
    tally = health.Tally(0.0)
    for failure in ("", "refused", "", "refused"):
        tally, reason = health.judge(PROBE, tally, failure, 1.0)
        assert reason == ""

    _, reason = health.judge(PROBE, tally, "refused", 1.0)
    assert reason == "health check tcp h:1 failed 2 times in a row: refused"


def test_judge_when_in_the_start_period_then_failures_count_only_after_a_success() -> None:
    tally = health.Tally(0.0)
    for _ in range(5):
        tally, reason = health.judge(PROBE, tally, "refused", 9.0)
        assert (tally.failures, reason) == (0, "")
    tally, _ = health.judge(PROBE, tally, "refused", 11.0)
    assert tally.failures == 1

    passed, _ = health.judge(PROBE, health.Tally(0.0), "", 1.0)
    assert health.judge(PROBE, passed, "refused", 2.0)[0].failures == 1


def test_silence_when_never_or_long_not_heard_then_told() -> None:
    probe = care.Probe(care.HEARTBEAT, "", 5.0)

    assert health.silence(probe, 0.0, None, 4.0) == health.silence(probe, 0.0, 8.0, 12.0) == ""
    assert health.silence(probe, 0.0, None, 6.0) == "no UpdateState RUNNING for 6.0 s"


def test_watch_when_something_changed_has_a_health_check_then_ten_seconds_unless_local() -> None:
    checked = component.Component(
        name="A", version="1.0.0", lifecycle={"run": "x"}, marram={"healthCheck": {"tcp": "h:1"}}
    )

    assert progress.watch_s({"A": checked}, -1.0, local=False) == 10.0
    assert progress.watch_s({"A": checked}, -1.0, local=True) == 0.0
    assert progress.watch_s({"A": checked}, 1.5, local=False) == 1.5
