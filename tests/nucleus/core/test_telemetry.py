from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import telemetry
from nucleus.core.lifecycle import State


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, 3600, 86_400)),
        ({"enabled": False}, (False, 3600, 86_400)),
        ({"enabled": "false"}, (False, 3600, 86_400)),
        ({"periodicAggregateMetricsIntervalSeconds": 7200}, (True, 7200, 86_400)),
        ({"periodicAggregateMetricsIntervalSec": 7200}, (True, 7200, 86_400)),
        ({"periodicPublishMetricsIntervalSeconds": "172800"}, (True, 3600, 172_800)),
        ({"periodicPublishMetricsIntervalSec": 90_000}, (True, 3600, 90_000)),
        (
            {"PERIODICPUBLISHMETRICSINTERVALSECONDS": 90_000, "periodicPublishMetricsIntervalSec": 1},
            (True, 3600, 90_000),
        ),
        ({"periodicPublishMetricsIntervalSeconds": 5, "periodicAggregateMetricsIntervalSec": 5}, (True, 3600, 86_400)),
        ({"periodicPublishMetricsIntervalSeconds": "soon"}, (True, 3600, 86_400)),
        ({"periodicPublishMetricsIntervalSeconds": float("nan")}, (True, 3600, 86_400)),
        ("yes", (True, 3600, 86_400)),
    ],
)
def test_read_when_settings_are_given_in_either_spelling_then_they_count_above_the_least(
    given: Any, expected: tuple[bool, float, float]
) -> None:
    assert telemetry.read({"telemetry": given}) == telemetry.Settings(*expected)


def test_counts_when_components_have_states_then_every_state_of_the_field_is_counted() -> None:
    found = telemetry.counts([State.RUNNING, State.RUNNING, State.BROKEN])

    assert found["NumberOfComponentsRunning"] == 2
    assert found["NumberOfComponentsBroken"] == 1
    assert set(found) == {f"NumberOfComponents{name}" for name in telemetry.COUNTED}


def test_aggregates_when_samples_are_taken_then_averages_carry_names_and_units() -> None:
    samples = [{"CpuUsage": 10.0, "TotalNumberOfFDs": 100}, {"CpuUsage": 20.0}]

    system, components = telemetry.aggregates(7, samples, [{"NumberOfComponentsRunning": 3.0}])

    assert system == {
        "TS": 7,
        "NS": "SystemMetrics",
        "M": [
            {"N": "CpuUsage", "Average": 15.0, "U": "Percent"},
            {"N": "TotalNumberOfFDs", "Average": 100.0, "U": "Count"},
        ],
    }
    assert components["M"] == [{"N": "NumberOfComponentsRunning", "Average": 3.0, "U": "Count"}]
    assert telemetry.aggregates(7, [], []) == []


def test_messages_when_a_week_is_held_then_each_stays_small_and_none_is_lost() -> None:
    held = [{"TS": number} for number in range(250)]

    found = telemetry.messages(held)

    assert [len(one["ADP"]) for one in found] == [100, 100, 50]
    assert {one["Schema"] for one in found} == {telemetry.SCHEMA}
    assert [each for one in found for each in one["ADP"]] == held


@pytest.mark.parametrize(
    ("now_ms", "last_ms", "due"), [(999, 0, False), (1000, 0, True), (5, 10, True), (10, 10, False)]
)
def test_is_due_when_time_passes_or_goes_back_then_it_is(now_ms: int, last_ms: int, due: bool) -> None:
    assert telemetry.is_due(now_ms, last_ms, 1.0) is due
