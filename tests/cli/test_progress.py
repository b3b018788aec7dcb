from __future__ import annotations

import io

import pytest
from rich import console

from cloud.cli import progress, view
from nucleus.cli import exits


def _device(thing: str, status: str, **details: str) -> progress.Device:
    return progress.Device(thing, status, {key.replace("_", "-"): value for key, value in details.items()})


ROLLED_BACK = {"detailed_deployment_status": "FAILED_ROLLBACK_COMPLETE", "deployment_failure_cause": "it\nbroke"}


@pytest.mark.parametrize(
    ("devices", "code"),
    [
        ([], exits.OK),
        ([_device("a", "SUCCEEDED"), _device("b", "COMPLETED")], exits.OK),
        ([_device("a", "SUCCEEDED"), _device("b", "FAILED", **ROLLED_BACK)], exits.ROLLED_BACK),
        ([_device("a", "FAILED", detailed_deployment_status="FAILED_NO_STATE_CHANGE")], exits.UNSATISFIED),
        ([_device("a", "CANCELED"), _device("b", "FAILED", **ROLLED_BACK)], exits.UNSATISFIED),
        ([_device("a", "REJECTED")], exits.UNSATISFIED),
    ],
)
def test_exit_code_when_a_deployment_has_ended_then_it_tells_how(devices: list[progress.Device], code: int) -> None:
    assert progress.exit_code(progress.Standing("d", "ACTIVE", tuple(devices))) == code


def test_line_when_a_device_waits_then_it_says_for_what() -> None:
    waiting = _device("a", "IN_PROGRESS", marram_waiting_for="Startup script, 12 s of 120 s")

    assert waiting.line() == "in progress (Startup script, 12 s of 120 s)"


def test_causes_when_devices_fail_alike_then_the_reason_is_one_line_told_once() -> None:
    devices = [_device("a", "FAILED", **ROLLED_BACK), _device("b", "FAILED", **ROLLED_BACK), _device("c", "SUCCEEDED")]

    assert progress.causes(devices) == [("it broke", ["a", "b"])]


@pytest.mark.parametrize(
    ("detail", "stack", "told"),
    [
        ("FAILED_NO_STATE_CHANGE", "[DEPLOYMENT_FAILURE, SIGNATURE_MISSING]", "why [SIGNATURE_MISSING]"),
        ("FAILED_NO_STATE_CHANGE", ["DEPLOYMENT_FAILURE", "SIGNATURE_MISSING"], "why [SIGNATURE_MISSING]"),
        ("FAILED_NO_STATE_CHANGE", [], "why"),
        ("FAILED_ROLLBACK_COMPLETE", ["DEPLOYMENT_FAILURE", "COMPONENT_BROKEN"], "why"),
    ],
    ids=["job", "shadow", "without a stack", "rolled back"],
)
def test_cause_when_it_was_refused_beforehand_then_its_code_is_told_too(detail: str, stack: object, told: str) -> None:
    details = {"detailedStatus": detail, "failureCause": "why", "errorStack": stack}

    assert progress.Device("a", "FAILED", details).cause == told


def test_details_when_they_come_from_the_shadow_then_they_are_understood_too() -> None:
    device = progress.Device("a", "FAILED", {"detailedStatus": "FAILED_ROLLBACK_COMPLETE", "failureCause": "why"})

    assert (device.detail, device.cause) == ("FAILED_ROLLBACK_COMPLETE", "why")


def test_view_when_not_on_a_terminal_then_it_writes_a_line_for_each_change_only() -> None:
    out = io.StringIO()
    queued, done = _device("a", "QUEUED"), _device("a", "SUCCEEDED")

    with view.View(console.Console(file=out), frozenset()) as show:
        for device in (queued, queued, done, done):
            show(progress.Standing("d", "ACTIVE", (device,)))

    assert out.getvalue() == "a: queued\na: SUCCEEDED\n"


def test_view_when_on_a_terminal_then_a_crowd_is_counted_and_failures_are_seen() -> None:
    out = io.StringIO()
    crowd = [_device(f"device-{number:03}", "SUCCEEDED") for number in range(100)]

    with view.View(console.Console(file=out, force_terminal=True, width=120, height=200), frozenset()) as show:
        show(progress.Standing("d", "ACTIVE", (*crowd, _device("zzz", "FAILED", **ROLLED_BACK))))

    assert "zzz" in out.getvalue()
    assert "61 more" in out.getvalue()
