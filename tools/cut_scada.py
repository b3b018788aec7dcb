"""Cuts the SCADA files this repository ships out of the full La Haute Borne table (tools/cut_scada.py SOURCE.csv.gz).

Makes two files, the same bytes on every run:
- what the demo's two monitors replay: two turbines, December 2014 to November 2015;
- what the power curve learns from: all four turbines, January to October 2014, every fourth row.

The source has one row per turbine and ten minutes with the columns `Wind_turbine_name Date_time P_avg Ws_avg Ba_avg
Ot_avg` and more; an empty field is a missing value. Rows that carry the same instant twice (the source repeats an hour
when summer time begins) are kept once. See NOTICE for the licence.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
REPLAY = ROOT / "components/turbine_monitor/1.0.0/scada.csv.gz"
TRAINING = ROOT / "components/power_curve_model/training/scada_2014.csv.gz"
HEADER = ("turbine", "time", "power_kw", "wind_speed_m_s", "pitch_deg", "outdoor_c")
REPLAYED_TURBINES = ("R80711", "R80721")
TRAINING_STEP = 4  # neighbouring ten-minute rows are nearly the same: a quarter of them teaches as much


class Row(Struct, frozen=True):
    """One line of the source, its text untouched, with the instant it stands for."""

    turbine: str
    at: float
    fields: tuple[str, ...]


def read(source: Path) -> list[Row]:
    """All rows by turbine and time, each instant once."""
    seen: dict[tuple[str, float], Row] = {}
    with gzip.open(source, "rt", newline="") as text:
        for line in csv.DictReader(text):
            at = datetime.fromisoformat(line["Date_time"]).timestamp()
            values = (line["Date_time"], line["P_avg"], line["Ws_avg"], line["Ba_avg"], line["Ot_avg"])
            row = Row(line["Wind_turbine_name"], at, (line["Wind_turbine_name"], *values))
            seen.setdefault((row.turbine, row.at), row)
    return [seen[key] for key in sorted(seen)]


def within(rows: Iterable[Row], first: str, after: str) -> Iterator[Row]:
    """Rows with `first` <= time < `after`, both dates in UTC."""
    start = datetime.fromisoformat(first + "T00:00:00+00:00").timestamp()
    end = datetime.fromisoformat(after + "T00:00:00+00:00").timestamp()
    return (row for row in rows if start <= row.at < end)


def write(target: Path, rows: Iterable[Row]) -> None:
    """Writes a gzip file without a time or name inside, so that the same rows give the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(row.fields for row in rows)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as out:
        out.write(text.getvalue().encode())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(packed.getvalue())
    print(f"{target.relative_to(ROOT)}: {len(packed.getvalue()):,} bytes")


def main() -> None:
    """Reads the source named on the command line and writes both cuts into the repository."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="la_haute_borne_2014_2015.csv.gz")
    rows = read(parser.parse_args().source)
    write(REPLAY, (row for row in within(rows, "2014-12-01", "2015-12-01") if row.turbine in REPLAYED_TURBINES))
    write(TRAINING, list(within(rows, "2014-01-01", "2014-11-01"))[::TRAINING_STEP])


if __name__ == "__main__":
    main()
