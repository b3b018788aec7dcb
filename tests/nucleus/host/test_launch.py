"""Launch directories and links; a crash between two changes of links is repaired by the loader (test_loader.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nucleus.core import errors
from nucleus.host import launch


@pytest.fixture
def launches(tmp_path: Path) -> launch.Launches:
    made = launch.Launches(tmp_path, under_loader=True)
    made.make_first()
    return made


def finished(tmp_path: Path, name: str) -> None:
    (tmp_path / "alts" / name).mkdir()
    (tmp_path / "alts" / name / "python").write_text("venv/bin/python\n")


def links(tmp_path: Path) -> dict[str, str]:
    alts = tmp_path / "alts"
    return {one: alts.joinpath(one).readlink().name for one in launch.LINKS if alts.joinpath(one).is_symlink()}


def test_make_first_when_done_then_current_runs_this_interpreter(launches: launch.Launches, tmp_path: Path) -> None:
    assert launches.current() == "init"
    assert (tmp_path / "alts" / "current" / "python").read_text() == f"{sys.executable}\n"


def test_make_first_when_updated_since_then_current_stays(launches: launch.Launches, tmp_path: Path) -> None:
    finished(tmp_path, "d1")
    launches.switch("d1")

    launches.make_first()

    assert launches.current() == "d1"


def test_switch_when_done_twice_then_old_is_still_the_one_before(launches: launch.Launches, tmp_path: Path) -> None:
    finished(tmp_path, "d1")

    launches.switch("d1")
    launches.switch("d1")

    assert links(tmp_path) == {"current": "d1", "old": "init"}


def test_switch_when_the_directory_is_not_finished_then_nothing_moves(
    launches: launch.Launches, tmp_path: Path
) -> None:
    (tmp_path / "alts" / "d1").mkdir()

    with pytest.raises(errors.NucleusError) as caught:
        launches.switch("d1")

    assert caught.value.code == "LAUNCH_DIRECTORY_CORRUPTED"
    assert links(tmp_path) == {"current": "init"}


def test_back_when_switched_then_the_old_one_is_current_and_the_new_one_kept(
    launches: launch.Launches, tmp_path: Path
) -> None:
    finished(tmp_path, "d1")
    launches.switch("d1")

    assert launches.back()
    assert links(tmp_path) == {"current": "init", "broken": "d1"}
    assert not launches.back()


def test_tidy_when_decided_then_only_what_runs_and_the_first_stay(launches: launch.Launches, tmp_path: Path) -> None:
    for name in ("d1", "d2"):
        finished(tmp_path, name)
        launches.switch(name)

    launches.tidy(())

    assert links(tmp_path) == {"current": "d2"}
    assert sorted(path.name for path in (tmp_path / "alts").iterdir()) == ["current", "d2", "init"]


def test_install_when_the_wheels_are_none_then_an_error_with_its_last_words(
    launches: launch.Launches, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()

    with pytest.raises(errors.NucleusError) as caught:
        launches.install("d1", tmp_path / "wheels", "marram==9.9.9")

    assert caught.value.code == "COMPONENT_BOOTSTRAP_ERROR"
    assert "marram==9.9.9" in caught.value.detail
    assert not (tmp_path / "alts" / "d1" / "python").exists()


def test_why_fixed_when_no_loader_then_it_says_what_to_do(tmp_path: Path) -> None:
    assert "marram nucleus install" in launch.Launches(tmp_path, under_loader=False).why_fixed()
