from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nucleus.cli import exits, logs
from tests.cli import marram


@pytest.fixture
def device(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "com.example.App.log").write_text("".join(f"line {number}\n" for number in range(10)))
    return tmp_path


def test_logs_when_a_component_is_named_then_its_last_lines_are_shown(device: Path) -> None:
    shown = marram.run("logs", "com.example.App", "--root", device, "-n", "2")

    assert shown.out == "line 8\nline 9\n"


def test_logs_when_nothing_is_named_then_the_logs_are_listed(device: Path) -> None:
    assert marram.run("logs", "--root", device).out == "com.example.App\n"


@pytest.mark.parametrize("name", ["ghost", "../secret", "com.example.App.log"])
def test_logs_when_the_name_is_unknown_then_the_known_ones_are_told(device: Path, name: str) -> None:
    (device / "secret.log").write_text("secret")

    shown = marram.run("logs", name, "--root", device)

    assert shown.code == exits.ERROR
    assert "com.example.App" in shown.err
    assert "secret\n" not in shown.out


def test_followed_when_the_file_is_rotated_then_the_new_one_goes_on(device: Path) -> None:
    path = device / "logs" / "com.example.App.log"
    stop = threading.Event()
    lines = logs.followed(path, path.stat().st_size, stop)

    with path.open("a") as stream:
        stream.write("before\n")
    assert next(lines) == "before\n"
    path.rename(path.with_name("com.example.App_2026.log"))
    path.write_text("after\n")
    assert next(lines) == "after\n"

    stop.set()
    assert list(lines) == []
