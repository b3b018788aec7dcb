"""Copies that can be brought back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nucleus.core import errors
from nucleus.host import snapshots


@pytest.fixture
def work(tmp_path: Path) -> Path:
    found = tmp_path / "work"
    (found / "data" / "deep").mkdir(parents=True)
    (found / "data" / "deep" / "rows").write_text("old rows")
    (found / "data" / "deep" / "rows").chmod(0o640)
    (found / "data" / "link").symlink_to("/etc/passwd")
    (found / "settings").write_text("old settings")
    os.mkfifo(found / "data" / "pipe")
    return found


def test_restore_when_everything_was_changed_then_it_is_as_before_and_the_rest_stays(
    work: Path, tmp_path: Path
) -> None:
    place = tmp_path / "kept"
    size = snapshots.take(work, ("data", "settings", "absent/file"), place, max_bytes=1000)
    with (work / "settings").open("r+") as settings:  # in place: a hard link would change as well
        settings.write("new")
    (work / "data" / "deep" / "rows").unlink()
    (work / "data" / "more").touch()
    (work / "absent").mkdir()
    (work / "absent" / "file").touch()
    (work / "other").write_text("kept")

    for _ in range(2):
        found = snapshots.restore(place, work)

    assert size == len("old rows") + len("old settings")
    assert found.present == (True, True, False)
    assert (work / "settings").read_text() == "old settings"
    assert (work / "data" / "deep" / "rows").read_text() == "old rows"
    assert stat.S_IMODE((work / "data" / "deep" / "rows").stat().st_mode) == 0o640
    assert (work / "data" / "link").readlink() == Path("/etc/passwd")
    assert sorted(path.name for path in (work / "data").iterdir()) == ["deep", "link"]  # a pipe is nothing to keep
    assert not (work / "absent" / "file").exists()
    assert (work / "other").read_text() == "kept"
    assert [path.name for path in work.rglob(".*")] == []


def test_take_when_over_the_limit_then_nothing_is_copied(work: Path, tmp_path: Path) -> None:
    with pytest.raises(snapshots.TooMuch, match="more than maxBytes 10"):
        snapshots.take(work, ("data", "settings"), tmp_path / "kept", max_bytes=10)

    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_take_when_a_path_leads_out_through_a_link_then_refused(work: Path, tmp_path: Path) -> None:
    (work / "away").symlink_to("/etc")

    with pytest.raises(errors.NucleusError):
        snapshots.take(work, ("away/passwd",), tmp_path / "kept", max_bytes=10**6)


def test_take_when_it_failed_before_then_what_was_left_over_is_no_snapshot(work: Path, tmp_path: Path) -> None:
    (tmp_path / ".kept.new" / "data" / "0").mkdir(parents=True)

    snapshots.take(work, ("settings",), tmp_path / "kept", max_bytes=1000)
    (work / "settings").unlink()
    snapshots.restore(tmp_path / "kept", work)

    assert (work / "settings").read_text() == "old settings"


def test_restore_when_nothing_could_be_taken_then_it_says_why_and_changes_nothing(work: Path, tmp_path: Path) -> None:
    snapshots.leave(tmp_path / "kept", "too much")

    assert snapshots.restore(tmp_path / "kept", work).left == "too much"
    assert (work / "settings").read_text() == "old settings"
