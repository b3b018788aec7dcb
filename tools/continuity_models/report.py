"""What the streams noticed (pure): requests due in a window, their failures, the longest gap, p99.9 against steady."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct


class Request(Struct, frozen=True):
    """`due` and `done` by time.monotonic(); `what` is ok, wrong or failed."""

    due: float
    done: float
    version: str
    what: str

    @property
    def took_ms(self) -> float:
        return (self.done - self.due) * 1000


class Row(Struct, frozen=True):
    """One stream and one event; `failed` includes what nobody took, `gap_ms` is the longest time between two good answers."""

    answered: int
    failed: int
    wrong: int
    gap_ms: float
    p999_ms: float
    versions: tuple[str, ...]


def read(path: Path) -> list[Request]:
    """A stream's log in order of due times; lines that a kill tore are left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        parts = line.split(",")
        if len(parts) == 4 and parts[3] in ("ok", "wrong", "failed"):
            found.append(Request(float(parts[0]), float(parts[1]), parts[2], parts[3]))
    return sorted(found, key=lambda one: one.due)


def row(requests: Sequence[Request], begin: float, end: float, rate: float) -> Row:
    """What was due between two moments. Pictures that nobody took left no request: the rate says how many they are."""
    inside = requests[bisect.bisect_left(requests, begin, key=_due) : bisect.bisect_left(requests, end, key=_due)]
    good = [one for one in inside if one.what == "ok"]
    missing = max(0, round((end - begin) * rate) - len(inside) - 1)  # one may fall on the edge
    return Row(
        answered=len(good),
        failed=missing + sum(one.what == "failed" for one in inside),
        wrong=sum(one.what == "wrong" for one in inside),
        gap_ms=_longest_gap(requests, begin, end) * 1000,
        p999_ms=quantile([one.took_ms for one in inside if one.what != "failed"], 0.999),
        versions=tuple(sorted({one.version for one in inside if one.version})),
    )


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies, the largest for few; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def _longest_gap(requests: Sequence[Request], begin: float, end: float) -> float:
    """Seconds between two good answers, whenever they were due; those that only end or begin in the window count whole."""
    moments = sorted(one.done for one in requests if one.what == "ok")
    first = max(0, bisect.bisect_left(moments, begin) - 1)
    inside = moments[first : bisect.bisect_right(moments, end) + 1]
    return max((later - earlier for earlier, later in itertools.pairwise(inside)), default=end - begin)


def _due(one: Request) -> float:
    return one.due
