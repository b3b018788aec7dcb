from __future__ import annotations

import datetime
import json

import pytest

from nucleus.core import log_lines
from nucleus.host import logs

ZONE = datetime.timezone(datetime.timedelta(hours=2))
NOW = datetime.datetime(2026, 6, 30, 12, 0, tzinfo=ZONE)
TEXT = "2026-06-30T10:00:00.250Z [WARN] (main) com.a: stderr. it, hurts. {serviceName=com.a, exitCode=1}"
JSON = json.dumps(
    {
        "thread": "main",
        "level": "WARN",
        "eventType": "stderr",
        "message": "it, hurts",
        "contexts": {"serviceName": "com.a", "exitCode": "1"},
        "loggerName": "com.a",
        "timestamp": 1_782_813_600_250,
        "cause": None,
    }
)


def _ms(*moment: int, zone: datetime.timezone = ZONE) -> int:
    year, month, day, *time = moment
    return round(datetime.datetime(year, month, day, *time, tzinfo=zone).timestamp() * 1000)


@pytest.mark.parametrize("text", [TEXT, JSON])
def test_read_when_either_form_is_given_then_time_level_and_fields_are_known(text: str) -> None:
    line = log_lines.read(text)

    assert line.at_ms == 1_782_813_600_250
    assert line.known["level"] == "WARN"
    assert line.known["event"] == "stderr"
    assert line.known["exitCode"] == "1"
    assert line.told() == TEXT


@pytest.mark.parametrize("form", [logs.TEXT, logs.JSON])
def test_read_when_the_daemon_wrote_the_line_then_it_is_understood(form: str) -> None:
    line = log_lines.read(
        logs.format_line(form, "INFO", "nucleus", "component.exited", "", {"component": "a", "code": 3})
    )

    assert (line.known["event"], line.known["code"], line.known["logger"]) == ("component.exited", "3", "nucleus")


@pytest.mark.parametrize(
    "text", ["", "  at Foo.java:3", "{", '{"timestamp": "x"}', "[1]", "2026 [INFO] (a) b: c", "{}"]
)
def test_read_when_the_form_is_foreign_then_only_the_text_is_known(text: str) -> None:
    assert log_lines.read(text) == log_lines.Line(text)


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ((), True),
        (("hurts",), True),
        (("h.rts",), True),
        (("nothing",), False),
        (("nothing,hurts",), True),
        (("hurts", "nothing"), False),
        (("level=INFO",), True),
        (("level=ERROR",), False),
        (("exitCode=1",), True),
        (("exitCode=2,serviceName=com.a",), True),
        (("component=com.a", "eventType=stderr"), True),
        (("component=com",), False),
        (("(",), True),
    ],
)
def test_chosen_when_filtered_then_commas_mean_or_and_arguments_mean_and(
    filters: tuple[str, ...], passes: bool
) -> None:
    assert log_lines.chosen(log_lines.read(TEXT), filters, ()) is passes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-06-01,2026-06-02", (_ms(2026, 6, 1), _ms(2026, 6, 2))),
        ("20260601,", (_ms(2026, 6, 1), _ms(2026, 6, 30, 12))),
        ("11:30:00,11:45:10", (_ms(2026, 6, 30, 11, 30), _ms(2026, 6, 30, 11, 45, 10))),
        ("2026-06-30T10:00:00Z,2026-06-30T15:00:00", (_ms(2026, 6, 30, 12), _ms(2026, 6, 30, 15))),
        ("-2h15min,-1hr", (_ms(2026, 6, 30, 9, 45), _ms(2026, 6, 30, 11))),
        (",+1day", (_ms(2026, 6, 30, 12), _ms(2026, 7, 1, 12))),
        ("-90seconds,", (_ms(2026, 6, 30, 11, 58, 30), _ms(2026, 6, 30, 12))),
    ],
)
def test_window_when_written_in_any_form_then_it_is_read(text: str, expected: tuple[int, int]) -> None:
    assert log_lines.window(text, NOW) == expected


@pytest.mark.parametrize("text", ["now", "2026-06-30", "soon,later", "-1h,-2h", "-2x,"])
def test_window_when_it_is_none_then_the_sentence_shows_it(text: str) -> None:
    with pytest.raises(ValueError, match=text.split(",")[0]):
        log_lines.window(text, NOW)


def test_chosen_when_windows_are_given_then_any_one_will_do_and_lines_without_time_are_left_out() -> None:
    line = log_lines.read(TEXT)
    inside, outside = (line.at_ms, line.at_ms), (0, 1)

    assert log_lines.chosen(line, (), (outside, inside))
    assert not log_lines.chosen(line, (), (outside,))
    assert not log_lines.chosen(log_lines.Line("stack"), (), (inside,))
