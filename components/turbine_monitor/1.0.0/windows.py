"""Decides what under-performance is: pure rules over rows and the power the model expects for them.

A row is *low* if the wind is good (>= 5 m/s), the blades stand in it (pitch < 2 degrees: a turbine that turns them out
was stopped or limited on purpose, which is no fault) and power is below 70 % of what is expected. Three low rows in a
row open a window, the first row that is not low (or missing) closes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import replay

GOOD_WIND_M_S = 5.0
BLADES_IN_WIND_DEG = 2.0
LOW_SHARE = 0.7
ROWS_TO_OPEN = 3


@dataclass(frozen=True)
class Window:
    """A closed window; powers are means over its rows, `started` and `ended` the times of its first and last row."""

    started: str
    ended: str
    rows: int
    power_kw: float
    expected_kw: float
    wind_speed_m_s: float
    model_version: str


class Detector:
    """Follows one turbine row by row."""

    def __init__(self) -> None:
        self._low: list[tuple[replay.Row, float]] = []

    @property
    def open_rows(self) -> int:
        """How many rows back the run of low rows began that is not closed yet; 0 without one."""
        return len(self._low)

    def feed(self, row: replay.Row | None, expected_kw: float, model_version: str) -> Window | None:
        """Takes the next row; returns the window it closes, if any."""
        if row is not None and is_low(row, expected_kw):
            self._low.append((row, expected_kw))
            return None
        low, self._low = self._low, []
        return _window(low, model_version) if len(low) >= ROWS_TO_OPEN else None


def is_low(row: replay.Row, expected_kw: float) -> bool:
    """Whether this row shows less power than it should, and nobody wanted that."""
    wanted = row.wind_speed_m_s >= GOOD_WIND_M_S and row.pitch_deg < BLADES_IN_WIND_DEG
    return wanted and row.power_kw < LOW_SHARE * expected_kw


def _window(low: list[tuple[replay.Row, float]], model_version: str) -> Window:
    count = len(low)
    return Window(
        started=low[0][0].time,
        ended=low[-1][0].time,
        rows=count,
        power_kw=round(sum(row.power_kw for row, _ in low) / count, 1),
        expected_kw=round(sum(expected for _, expected in low) / count, 1),
        wind_speed_m_s=round(sum(row.wind_speed_m_s for row, _ in low) / count, 2),
        model_version=model_version,
    )
