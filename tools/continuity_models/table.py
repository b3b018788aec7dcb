"""Prints what was measured, one row for each event and stream; nothing is judged away."""

from __future__ import annotations

import shutil
import statistics

from msgspec import Struct

from tools.continuity_models import boot, report

GOAL = 1.5  # p99.9 against steady
_HEAD = (
    f"{'event':44} {'stream':9} {'answered':>8} {'failed':>6} {'wrong':>6} {'gap ms':>8} {'p99.9 ms':>9} {'/steady':>8}"
)


class Window(Struct, frozen=True):
    """An event between `begin` and `end`, with a quiet time from `quiet` before it; `problem` if it did not go as it should."""

    name: str
    quiet: float
    begin: float
    end: float
    problem: str


class Column(Struct, frozen=True):
    """All that one system did."""

    name: str
    rates: dict[str, float]
    requests: dict[str, list[report.Request]]
    windows: list[Window]


def show(column: Column) -> bool:
    """Prints a column; True if nothing failed, was wrong, or went otherwise than it should."""
    print(f"\n{column.name}", flush=True)
    print(_HEAD)
    steady = {alias: _steady(column, alias) for alias in column.rates}
    for alias, found in steady.items():
        print(_line("steady (all quiet times; p99.9: median)", alias, found, 0))
    good = True
    for window in column.windows:
        for alias, rate in column.rates.items():
            found = report.row(column.requests[alias], window.begin, window.end, rate)
            print(_line(window.name, alias, found, steady[alias].p999_ms))
            good = good and not (found.failed or found.wrong or window.problem)
        if window.problem:
            print(f"    {window.problem[: shutil.get_terminal_size((160, 24)).columns]}")
    return good


def show_boots(boots: list[boot.Boot]) -> bool:
    """Prints the cold boots; True if no request failed or was answered wrongly."""
    print("\nmarram, cold boot in every order (1 s apart)")
    print(f"{'order':44} {'asked':>8} {'failed':>6} {'wrong':>6} {'first answer after the last start, ms':>38}")
    for one in boots:
        print(f"{', '.join(one.order):44} {one.asked:8} {one.failed:6} {one.wrong:6} {one.first_ms:38.0f}")
    return not any(one.failed or one.wrong for one in boots)


def _steady(column: Column, alias: str) -> report.Row:
    """All quiet times; `p999_ms` is the median of each one's own, so that the backlog one event left behind does not flatter."""
    rows = [report.row(column.requests[alias], one.quiet, one.begin, column.rates[alias]) for one in column.windows]
    return report.Row(
        answered=sum(one.answered for one in rows),
        failed=sum(one.failed for one in rows),
        wrong=sum(one.wrong for one in rows),
        gap_ms=max((one.gap_ms for one in rows), default=0.0),
        p999_ms=statistics.median([one.p999_ms for one in rows]) if rows else 0.0,
        versions=(),
    )


def _line(name: str, alias: str, found: report.Row, steady_ms: float) -> str:
    times = f"{found.p999_ms / steady_ms:7.1f}x" if steady_ms else f"{'':8}"
    return (
        f"{name:44} {alias:9} {found.answered:8} {found.failed:6} {found.wrong:6} {found.gap_ms:8.0f}"
        f" {found.p999_ms:9.1f} {times} {', '.join(found.versions)}"
    )
