from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nucleus.cli import exits
from tests.cli import marram


def _line(minute: int, level: str, logger: str, event: str) -> str:
    return f"2026-01-01T10:{minute:02}:00.000Z [{level}] (main) {logger}: {event}. {{code={minute}}}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "com.a_2026_01_01_10_0.log").write_text(_line(1, "INFO", "com.a", "one"))
    (logs / "com.a.log").write_text(
        _line(3, "WARN", "com.a", "three") + "  a stack\n" + _line(5, "ERROR", "com.a", "five")
    )
    (logs / "greengrass.log").write_text(_line(2, "INFO", "nucleus", "two") + _line(4, "INFO", "nucleus", "four"))
    return tmp_path


def test_get_when_several_files_are_read_then_lines_come_in_the_order_of_time(root: Path) -> None:
    shown = marram.run("logs", "get", "--root", root)

    events = [line.split(": ")[1].split(".")[0] if ": " in line else "stack" for line in shown.out.splitlines()]
    assert events == ["one", "two", "three", "stack", "four", "five"]


def test_get_when_filtered_then_lines_around_are_shown_as_asked(root: Path) -> None:
    shown = marram.run("logs", "get", "--filter", "level=WARN", "-b", "1", "-a", "1", "--root", root)

    codes = [line.partition("code=")[2] for line in shown.out.splitlines()]
    assert codes == ["2}", "3}", "", "4}", "5}"]


def test_get_when_a_time_window_and_a_file_are_given_then_only_they_count(root: Path) -> None:
    window = "2026-01-01T10:02:00Z,2026-01-01T10:03:00Z"

    shown = marram.run("logs", "get", "-lf", root / "logs" / "com.a.log", "-t", window)

    assert shown.out == _line(3, "WARN", "com.a", "three")


@pytest.mark.parametrize("arguments", [("-t", "yesterday"), ()])
def test_get_when_it_cannot_know_what_to_show_then_it_says_so(arguments: tuple[str, ...]) -> None:
    shown = marram.run("logs", "get", *arguments)

    assert shown.code == exits.ERROR
    assert "<begin>,<end>" in shown.err or "--log-dir" in shown.err


def test_get_when_following_then_new_lines_of_all_files_are_filtered_too(root: Path) -> None:
    command = [sys.executable, "-m", "nucleus.cli", "logs", "get", "--follow", "-f", "level=ERROR", "--root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "five" in process.stdout.readline()
        for name in ("com.a", "greengrass"):
            with (root / "logs" / f"{name}.log").open("a") as stream:
                stream.write(_line(6, "INFO", name, "quiet") + _line(7, "ERROR", name, "loud"))
            assert f"{name}: loud" in process.stdout.readline()
        process.terminate()


def test_list_log_files_when_asked_then_every_file_is_named(root: Path) -> None:
    shown = marram.run("logs", "list-log-files", "-ld", root / "logs")

    assert [Path(line).name for line in shown.out.splitlines()] == [
        "com.a.log",
        "com.a_2026_01_01_10_0.log",
        "greengrass.log",
    ]


def test_list_keywords_when_asked_then_levels_are_among_them() -> None:
    assert "level=TRACE|DEBUG|INFO|WARN|ERROR|FATAL" in marram.run("logs", "list-keywords").out
