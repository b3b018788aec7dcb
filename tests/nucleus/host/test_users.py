"""Users of the system and files that become theirs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nucleus.host import users

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to somebody else")
SOMEBODY = users.Account(name="45678", uid=45678, gid=45679, groups=(45679,))


def test_find_when_by_name_or_number_then_the_same_account() -> None:
    by_name, by_number = users.find("nobody"), users.find("65534")

    assert by_name == by_number
    assert by_name.name == "nobody"
    assert by_name.gid in by_name.groups


def test_find_when_a_group_is_given_then_it_is_the_first() -> None:
    assert users.find("nobody:0").gid == 0
    assert users.find("45678:45679") == SOMEBODY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no-such-user", "no user no-such-user"),
        ("nobody:no-such-group", "no group no-such-group"),
        ("45678", "no primary group"),
        ("99999999999", "no user"),
        ("nobody:", "is not user"),
    ],
)
def test_find_when_unknown_then_it_says_what_is_missing(text: str, why: str) -> None:
    with pytest.raises(users.Unknown, match=why):
        users.find(text)


def test_closed_folder_when_a_parent_is_private_then_that_one_is_named(tmp_path: Path) -> None:
    deep = tmp_path / "private" / "work" / "c"
    deep.mkdir(parents=True)
    for folder in deep.parents:
        if folder.is_relative_to(tmp_path):
            folder.chmod(0o755)
    (tmp_path / "private").chmod(0o700)

    closed = users.closed_folder(SOMEBODY, deep)

    assert closed in (tmp_path / "private", *tmp_path.parents)  # pytest's own folders are private as well
    assert users.closed_folder(users.Account("root", 0, 0), deep) is None


def test_open_ways_when_a_folder_of_ours_is_closed_then_others_may_pass_it_and_no_more(tmp_path: Path) -> None:
    target = tmp_path / "packages" / "artifacts" / "c"
    target.mkdir(parents=True)
    (tmp_path / "packages").chmod(0o700)
    target.chmod(0o700)

    users.open_ways(tmp_path, target)

    assert stat.S_IMODE((tmp_path / "packages").stat().st_mode) == 0o701
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@needs_root
def test_hand_over_when_links_lead_out_then_only_what_is_inside_changes_hands(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "file").touch()
    outside.mkdir()
    secret, twice = outside / "secret", outside / "twice"
    secret.touch()
    twice.touch()
    (inside / "link").symlink_to(secret)
    (inside / "folder").symlink_to(outside)
    (inside / "same").hardlink_to(twice)

    users.hand_over(SOMEBODY, (inside, tmp_path / "absent"))

    assert _owner(inside) == _owner(inside / "deep") == _owner(inside / "deep" / "file") == (45678, 45679)
    assert _owner(secret) == _owner(twice) == _owner(outside) == (0, 0)


def _owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid
