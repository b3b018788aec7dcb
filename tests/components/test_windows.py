"""The rules of under-performance."""

from __future__ import annotations

import pytest
import replay
import windows


def row(minute: int, power_kw: float, *, wind: float = 8.0, pitch: float = -1.0) -> replay.Row:
    return replay.Row(f"2015-01-01T00:{minute:02}:00+01:00", power_kw, wind, pitch, 5.0)


def feed(rows: list[replay.Row | None], expected_kw: float = 1000.0) -> list[windows.Window]:
    detector = windows.Detector()
    closed = [detector.feed(each, expected_kw, "1.0.0") for each in rows]
    return [window for window in closed if window is not None]


def test_window_when_three_rows_are_low_then_closed_by_the_next() -> None:
    rows = [row(0, 950), row(10, 600), row(20, 500), row(30, 400), row(40, 900)]

    assert feed(list(rows)) == [
        windows.Window(
            started="2015-01-01T00:10:00+01:00",
            ended="2015-01-01T00:30:00+01:00",
            rows=3,
            power_kw=500.0,
            expected_kw=1000.0,
            wind_speed_m_s=8.0,
            model_version="1.0.0",
        )
    ]


def test_window_when_two_rows_are_low_then_none() -> None:
    assert feed([row(0, 500), row(10, 500), row(20, 900), row(30, 500)]) == []


def test_window_when_a_row_is_missing_then_it_closes() -> None:
    assert [window.rows for window in feed([row(0, 1), row(10, 1), row(20, 1), None, row(40, 1), row(50, 900)])] == [3]


@pytest.mark.parametrize(
    ("measured", "low"),
    [
        (row(0, 699), True),
        (row(0, 700), False),
        (row(0, 100, wind=4.9), False),
        (row(0, -2, pitch=62.0), False),
        (row(0, 100, pitch=2.0), False),
    ],
    ids=["below", "enough", "calm", "feathered", "limited"],
)
def test_row_when_judged_then_low_only_without_a_reason(measured: replay.Row, low: bool) -> None:
    assert windows.is_low(measured, 1000.0) is low


def test_detector_when_a_run_is_open_then_says_how_long() -> None:
    detector = windows.Detector()
    for minute in (0, 10):
        detector.feed(row(minute, 1), 1000.0, "1.0.0")

    assert detector.open_rows == 2
