"""Reading the measurements and choosing the turbine."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import replay

from tests.components import parts

KNOWN = ["R80711", "R80721"]


@pytest.mark.parametrize(
    ("thing", "configured", "chosen"),
    [
        ("turbine-1", "auto", "R80711"),
        ("turbine-2", "auto", "R80721"),
        ("turbine-3", "auto", "R80711"),
        ("farm-r80721-north", "auto", "R80721"),
        ("north", "auto", "R80711"),
        ("turbine-1", "R80721", "R80721"),
    ],
)
def test_choose_turbine_when_asked_then_one_of_the_data(thing: str, configured: str, chosen: str) -> None:
    assert replay.choose_turbine(thing, configured, KNOWN) == chosen


def test_choose_turbine_when_unknown_then_error_names_the_known() -> None:
    with pytest.raises(ValueError, match="cannot watch turbine R1: the data has R80711, R80721"):
        replay.choose_turbine("turbine-1", "R1", KNOWN)


def test_read_when_values_miss_or_are_impossible_then_the_gap_stays(tmp_path: Path) -> None:
    text = (
        "turbine,time,power_kw,wind_speed_m_s,pitch_deg,outdoor_c\n"
        "A,2015-01-01T00:00:00+01:00,100.5,6.1,-1.0,3.2\n"
        "A,2015-01-01T00:10:00+01:00,,,,\n"
        "A,2015-01-01T00:20:00+01:00,100.5,6.1,-1.0,-273.2\n"
        "B,2015-01-01T00:00:00+01:00,1,2,3,4\n"
    )
    path = tmp_path / "scada.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))

    assert replay.turbines(path) == ["A", "B"]
    assert replay.read(path, "A") == [replay.Row("2015-01-01T00:00:00+01:00", 100.5, 6.1, -1.0, 3.2), None, None]
    assert len(replay.read(path, "B")) == 1


def test_committed_data_when_read_then_a_year_of_two_turbines() -> None:
    path = parts.MONITOR / "scada.csv.gz"

    assert replay.turbines(path) == KNOWN
    for turbine in KNOWN:
        complete = [row for row in replay.read(path, turbine) if row is not None]
        assert len(complete) > 50_000
        assert (complete[0].time[:10], complete[-1].time[:10]) == ("2014-12-01", "2015-12-01")
