"""Log lines, rotation, and what happens when they cannot be written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nucleus.core import log_settings
from nucleus.host import logs


def read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def family(directory: Path) -> list[Path]:
    return sorted(directory.glob("a*.log"))


def test_text_when_an_event_is_logged_then_the_field_s_line(tmp_path: Path) -> None:
    log = logs.Log("nucleus", directory=tmp_path).bind(part="supervisor")

    log.warning("component.exited", component="com.example.A", why="two\nlines")

    [line] = read(tmp_path / logs.DAEMON_FILE)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[WARN\] \(main\) nucleus: component\.exited\. "
        r"\{part=supervisor, component=com\.example\.A, why=two\\nlines\}",
        line,
    )


def test_json_when_an_event_is_logged_then_the_field_s_keys(tmp_path: Path) -> None:
    logs.Log("nucleus", directory=tmp_path, style=logs.Style(form=logs.JSON)).error("component.exited", code=3)

    record = json.loads((tmp_path / logs.DAEMON_FILE).read_text())
    assert set(record) == {
        "thread", "level", "eventType", "message", "contexts", "loggerName", "timestamp", "cause",
    }  # fmt: skip
    assert (record["level"], record["eventType"], record["contexts"]) == ("ERROR", "component.exited", {"code": "3"})


def test_level_when_below_then_nothing(tmp_path: Path) -> None:
    log = logs.Log(directory=tmp_path, style=logs.Style(level="WARN"))

    log.info("nucleus.started")
    log.debug("nucleus.started")
    log.error("nucleus.stopped")

    assert len(read(tmp_path / logs.DAEMON_FILE)) == 1


def test_log_when_there_is_no_directory_then_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.Log().info("nucleus.started")

    assert "nucleus.started" in capsys.readouterr().err


def test_output_when_a_script_writes_then_level_and_contexts(tmp_path: Path) -> None:
    writer = logs.output(tmp_path / "com.example.A.log", "com.example.A")

    writer.write("stdout", ["hello", "world"], phase="run", state="RUNNING")
    writer.write("stderr", ["bad"], phase="startup", state="STARTING")

    lines = [line.split(" ", 1)[1] for line in read(tmp_path / "com.example.A.log")]
    context = "serviceName=com.example.A"
    assert lines == [
        "[INFO] (main) com.example.A: stdout. hello. "
        f"{{scriptName=services.com.example.A.lifecycle.Run.Script, {context}, currentState=RUNNING}}",
        "[INFO] (main) com.example.A: stdout. world. "
        f"{{scriptName=services.com.example.A.lifecycle.Run.Script, {context}, currentState=RUNNING}}",
        "[WARN] (main) com.example.A: stderr. bad. "
        f"{{scriptName=services.com.example.A.lifecycle.Startup.Script, {context}, currentState=STARTING}}",
    ]


def test_rotation_when_a_file_is_full_then_moved_and_no_line_lost(tmp_path: Path) -> None:
    file = logs.RotatedFile(tmp_path / "a.log", logs.Style(file_bytes=100, total_bytes=10_000))

    for number in range(50):
        assert file.write(f"line {number}\n".encode())

    written = "".join(path.read_text() for path in sorted(family(tmp_path), key=lambda path: path.stat().st_mtime_ns))
    assert written == "".join(f"line {number}\n" for number in range(50))
    assert all(path.stat().st_size <= 100 for path in family(tmp_path))
    rotated = [path.name for path in family(tmp_path) if path.name != "a.log"]
    assert all(re.fullmatch(r"a_\d{4}_\d\d_\d\d_\d\d_\d+\.log", name) for name in rotated)


def test_rotation_when_the_total_is_reached_then_the_oldest_go_and_other_families_stay(tmp_path: Path) -> None:
    other = tmp_path / "a_b_2020_01_01_00_0.log"
    other.write_text("x" * 1000)
    file = logs.RotatedFile(tmp_path / "a.log", logs.Style(file_bytes=100, total_bytes=300))

    for number in range(200):
        file.write(f"line {number}\n".encode())

    mine = [path for path in family(tmp_path) if path != other]
    assert sum(path.stat().st_size for path in mine) <= 300
    assert "line 199\n" in (tmp_path / "a.log").read_text()
    assert other.exists()


def test_rotation_when_opened_again_then_it_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in range(3):
        file = logs.RotatedFile(tmp_path / "a.log", logs.Style(file_bytes=100, total_bytes=300))
        file.write(f"{number}\n".encode())
        file.close()

    assert (tmp_path / "a.log").read_text() == "0\n1\n2\n"


def test_write_when_the_disk_is_full_then_lines_are_counted_and_told_later(tmp_path: Path) -> None:
    (tmp_path / logs.DAEMON_FILE).symlink_to("/dev/full")
    log = logs.Log(directory=tmp_path)

    log.info("component.first")
    log.info("component.second")
    (tmp_path / logs.DAEMON_FILE).unlink()
    log.info("component.third")

    lines = read(tmp_path / logs.DAEMON_FILE)
    assert "component.third" in lines[0]
    assert "log.lines_lost. {lines=2}" in lines[1]


def test_write_when_the_folder_cannot_be_made_then_the_caller_never_knows(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    logs.Log(directory=tmp_path / "file").info("component.first")
    logs.output(tmp_path / "file" / "A.log", "A").write("stdout", ["x"], phase="run", state="RUNNING")


def test_style_when_it_is_changed_then_every_log_follows_from_the_next_line_on(tmp_path: Path) -> None:
    log = logs.Log("nucleus", directory=tmp_path)
    bound, writer = log.bind(part="x"), logs.output(tmp_path / "A.log", "A", log.style)
    bound.info("first")
    writer.write("stdout", ["one"], phase="run", state="RUNNING")

    log.style.adopt(log_settings.LogSettings(level="ERROR", form="JSON", file_kb=1, total_kb=3))
    bound.info("left.out")
    bound.error("second")
    for number in range(100):
        writer.write("stdout", [f"line {number}"], phase="run", state="RUNNING")

    lines = read(tmp_path / logs.DAEMON_FILE)
    assert "first" in lines[0]
    assert json.loads(lines[1])["eventType"] == "second"
    assert len(lines) == 2
    mine = list(tmp_path.glob("A*.log"))
    assert json.loads(read(tmp_path / "A.log")[-1])["message"] == "line 99"
    assert 1 < len(mine) <= 4
    assert sum(path.stat().st_size for path in mine) <= 3 * 1024
