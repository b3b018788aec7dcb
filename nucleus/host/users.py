"""Users and groups of the system, and handing a component's files over to its user.

Numbers are accepted where names are (spec/nucleus.md 2.7). Files are given away without following links: a component
could put one where it likes.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from nucleus.core import run_as


class Account(Struct, frozen=True):
    """Whom a process runs as; `home` is "" for a number without an entry in the system's list of users."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


class Unknown(Exception):  # noqa: N818  the word says it
    """There is no such user or group here; the text says what to do."""


def find(text: str) -> Account:
    """The account of `user[:group]`; the group is the user's primary one if not given. Raises Unknown."""
    try:
        user, group = run_as.split(text)
    except ValueError as error:
        raise Unknown(str(error)) from None
    entry = _entry(user)
    uid = entry.pw_uid if entry is not None else int(user)
    if group:
        gid = _gid(group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise Unknown(f"user {user} has no entry and so no primary group; write {user}:<group>")
    if entry is None:
        return Account(name=user, uid=uid, gid=gid, groups=(gid,))
    groups = tuple(os.getgrouplist(entry.pw_name, gid))
    return Account(name=entry.pw_name, uid=uid, gid=gid, groups=groups, home=entry.pw_dir)


def is_own(account: Account) -> bool:
    """Whether it is the nucleus's own user: then nothing is switched."""
    return account.uid == os.geteuid()


def closed_folder(account: Account, path: Path) -> Path | None:
    """The first folder on the way to `path`, from the top, that the account may not pass; None if there is none."""
    for folder in reversed(path.parents):
        try:
            found = folder.stat()
        except OSError:
            return folder
        if not _may_pass(account, found):
            return folder
    return None


def open_ways(root: Path, path: Path) -> None:
    """Lets everybody pass (not list) the folders between `root` and `path`, which are the nucleus's own."""
    for folder in path.parents:
        if not folder.is_relative_to(root):
            break
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def hand_over(account: Account, folders: Iterable[Path]) -> None:
    """Gives existing folders with all they hold to the account.

    Files with several names are left alone: one of them may be outside. Raises OSError.
    """
    for top in folders:
        if not top.is_dir() or top.is_symlink():
            continue
        for _, directories, names, descriptor in os.fwalk(top, follow_symlinks=False):
            _give(".", account, descriptor)
            for name in (*directories, *names):
                _give(name, account, descriptor)


def _give(name: str, account: Account, descriptor: int) -> None:
    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    if (found.st_uid, found.st_gid) == (account.uid, account.gid):
        return
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        return
    os.chown(name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)


def _may_pass(account: Account, found: os.stat_result) -> bool:
    if account.uid == 0:
        return True
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid or found.st_gid in account.groups:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _entry(user: str) -> pwd.struct_passwd | None:
    """The entry of a name or number; None for a number without one. Raises Unknown."""
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if user.isdecimal() and int(user) < 2**32 - 1:
            return None
        raise Unknown(f"there is no user {user} on this device; create it, or set another posixUser") from None


def _gid(group: str) -> int:
    if group.isdecimal() and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise Unknown(f"there is no group {group} on this device; create it, or set another posixUser") from None
