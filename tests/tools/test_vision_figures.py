"""What the vision demo and the continuity of models reckon from their logs, and the pictures the demo chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.continuity_models import report
from tools.demo_vision import figures, sheet


def line(number: int, at: float, version: str = "1.0.0", ms: float = 10.0) -> dict[str, object]:
    return {"number": number, "at": at, "ms": ms, "version": version, "tries": 1, "objects": 0}


def test_span_when_answers_fail_and_frames_are_passed_over_then_both_are_counted_apart() -> None:
    lines = [line(1, 1.0), line(2, 1.1), {"number": 4, "at": 1.5, "failed": "why"}, line(6, 2.0, "2.0.0")]

    found = figures.span(lines, 1.0, 2.0)

    assert (found.answered, found.failed, found.passed) == (2, 1, 2)
    assert found.versions == {"1.0.0": 1, "2.0.0": 1}
    assert found.longest_gap_ms == pytest.approx(900)  # the failed one answers nothing


def test_span_when_nothing_was_answered_then_there_are_no_figures() -> None:
    assert figures.span([], 0, 9) == figures.Span(0, 0, 0, 0.0, {})


def test_speed_when_asked_for_a_version_then_only_its_answers_after_the_moment_count() -> None:
    lines = [line(1, 1, ms=99), *(line(n, n, ms=n) for n in range(2, 12)), line(20, 20, "2.0.0", 1)]

    assert figures.speed(lines, "1.0.0", 1) == figures.Speed(10, 7, 11, 11)
    assert figures.speed(lines, "9.0.0") == figures.Speed(0, 0.0, 0.0, 0.0)


def test_answers_when_the_last_line_is_torn_then_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"number": 1, "at": 1}\n{"numb')

    assert figures.read(tmp_path) == [{"number": 1, "at": 1}]
    assert figures.read(tmp_path / "nowhere") == []


def test_pictures_when_chosen_then_each_version_has_its_share_and_its_first_one() -> None:
    names = [
        f"{number:07d}-{version}.jpg"
        for version, numbers in (("1.0.0", range(40)), ("2.0.0", range(40, 45)))
        for number in numbers
    ]

    chosen = [path.stem for path in sheet.choose([Path(name) for name in names], 8)]

    assert chosen == [
        "0000000-1.0.0",
        "0000013-1.0.0",
        "0000026-1.0.0",
        "0000039-1.0.0",
        "0000040-2.0.0",
        "0000041-2.0.0",
        "0000042-2.0.0",
        "0000044-2.0.0",
    ]


def test_caption_when_things_have_happened_then_it_names_the_last_one() -> None:
    marks = [(5.0, "on trial"), (9.0, "answers")]

    assert sheet.caption(4.0, 3.0, marks).endswith("1.0.0 deployed")
    assert sheet.caption(9.5, 3.0, marks) == "  6.5 s   answers"


# ---- continuity ----------------------------------------------------------------------------------------------------------


def asked(*what: tuple[float, float, str]) -> list[report.Request]:
    return [report.Request(due, done, "1.0.0", kind) for due, done, kind in what]


def test_row_when_all_is_well_then_nothing_failed_and_the_gap_is_between_answers() -> None:
    requests = asked(*((n / 10, n / 10 + 0.01, "ok") for n in range(100)))

    found = report.row(requests, 2.0, 6.0, 10)

    assert (found.answered, found.failed, found.wrong) == (40, 0, 0)
    assert found.gap_ms == pytest.approx(100)
    assert found.p999_ms == pytest.approx(10)


def test_row_when_nobody_took_requests_then_they_failed_and_the_gap_is_seen() -> None:
    requests = asked(*((n / 10, n / 10 + 0.01, "ok") for n in range(100) if not 30 <= n < 50))

    found = report.row(requests, 2.0, 6.0, 10)

    assert (found.answered, found.failed) == (20, 19)  # one may have fallen on the edge
    assert found.gap_ms == pytest.approx(2100)


def test_row_when_answers_fail_or_are_wrong_then_they_are_no_good_answers() -> None:
    requests = asked((0.0, 0.1, "ok"), (1.0, 1.1, "wrong"), (2.0, 9.0, "failed"), (3.0, 3.1, "ok"))

    found = report.row(requests, 0.0, 4.0, 1)

    assert (found.answered, found.failed, found.wrong) == (2, 1, 1)
    assert found.gap_ms == pytest.approx(3000)
    assert found.p999_ms == pytest.approx(100)


def test_log_when_a_kill_tore_a_line_then_the_others_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("2.0,2.1,1.0.0,ok\n1.0,1.1,1.0.0,wrong\n3.0,3.1,1.0")

    assert [one.due for one in report.read(tmp_path / "x.csv")] == [1.0, 2.0]
