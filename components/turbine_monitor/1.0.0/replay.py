"""The turbine's measurements: reads the SCADA file and says which turbine this device watches.

The file is CSV in gzip, one row per turbine and ten minutes: `turbine, time (ISO 8601 with offset), power_kw,
wind_speed_m_s, pitch_deg, outdoor_c`; an empty field is a missing value. Rows are in order of time.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROW_MINUTES = 10
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Row:
    """One complete ten-minute row; `time` is the text of the file."""

    time: str
    power_kw: float
    wind_speed_m_s: float
    pitch_deg: float
    outdoor_c: float


def turbines(path: Path) -> list[str]:
    """The turbines in the file, sorted."""
    with gzip.open(path, "rt") as text:
        next(text)
        return sorted({line.partition(",")[0] for line in text})


def read(path: Path, turbine: str) -> list[Row | None]:
    """All rows of one turbine; None where a value is missing or impossible, so that a gap stays a gap."""
    with gzip.open(path, "rt", newline="") as text:
        return [_row(line[1], line[2:]) for line in csv.reader(text) if line[0] == turbine]


def choose_turbine(thing: str, configured: str, known: Sequence[str]) -> str:
    """The turbine to watch; raises ValueError if the configured one is unknown.

    `auto` takes the turbine the thing is named after ("farm-R80711"), else the one its last number counts to
    ("turbine-2" is the second), else the first.
    """
    if configured != AUTO:
        if configured not in known:
            raise ValueError(f"cannot watch turbine {configured}: the data has {', '.join(known)}")
        return configured
    named = [turbine for turbine in known if turbine.lower() in thing.lower()]
    if named:
        return named[0]
    numbers = re.findall(r"\d+", thing)
    return known[(int(numbers[-1]) - 1) % len(known)] if numbers else known[0]


def _row(time: str, values: Sequence[str]) -> Row | None:
    if not all(values):
        return None
    row = Row(time, *(float(value) for value in values))
    # The source has a thermometer that read -273 and blades beyond a full turn: broken sensors, not weather.
    possible = -40 < row.outdoor_c < 60 and -10 < row.pitch_deg < 120 and 0 <= row.wind_speed_m_s < 60
    return row if possible else None
