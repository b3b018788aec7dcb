"""Starts the scripts of one component: as whom, in which folder, with which variables.

Environment of a script, low to high (spec/nucleus.md 1.6, 2.7): the nucleus's common variables, those of the user, the
component's token, `Lifecycle.Setenv`, the step's `Setenv`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import string
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.core import component, errors, run_as, scripts
from nucleus.core.lifecycle import Event, Phase
from nucleus.host import confine, files, logs, places, process, users

TOKEN_LENGTH = 16


def new_token() -> str:
    """What a component proves itself with: 16 upper-case letters (spec/ipc.md 2.2)."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(TOKEN_LENGTH))


class Tools(Struct, frozen=True):
    """What all runners share. `post` puts an event of a runner into the supervisor's queue; `noticed` tells that something
    others may see has changed without an event. `defaults` may answer differently later."""

    places: places.Places
    environment: Mapping[str, str]
    processes: process.Processes
    group: asyncio.TaskGroup
    post: Callable[[Any, Event], Awaitable[None]]
    noticed: Callable[[], None]
    defaults: Callable[[], run_as.Defaults]
    groups: confine.Groups
    before_install: Callable[[component.Component], None]
    log: logs.Log


class Failure(Exception):  # noqa: N818  ends one script
    """A script that cannot be started or did not succeed. `what` is the end of its status code."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what
        self.reason = reason


class Starter:
    """One component's. Files are handed to its user before its first script after each `begin`."""

    def __init__(self, tools: Tools, token: str, process_name: str) -> None:
        self._tools = tools
        self._token = token
        self._process_name = process_name
        self._owner: tuple[int, int] | None = None

    def begin(self) -> None:
        """The component starts anew: what it made as somebody else becomes its user's."""
        self._owner = None

    async def start(
        self, one: component.Component, phase: Phase, script: scripts.Script, sink: process.Sink
    ) -> process.Process:
        """Raises Failure with a sentence that says what to do."""
        directory = self._tools.places.work(one.name)
        account = self._account(one, script)
        what = f"the {phase.value.capitalize()} script of {one.name} {one.version}"
        try:
            files.make_directory(directory, 0o700)
            if account is not None:
                await asyncio.to_thread(self._prepare, one, account)
            order = process.Order(
                component=self._process_name,
                version=one.version,
                script=script.text,
                directory=directory,
                environment=self._environment(one, phase, script, account),
                shell=self._tools.defaults().posix_shell,
                account=account,
            )
            return self._tools.processes.spawn(order, sink)
        except (OSError, ValueError, errors.NucleusError) as error:
            raise Failure("IO_ERROR", f"cannot start {what} in {directory}: {error}") from error

    def skips(self, one: component.Component, script: scripts.Script) -> bool:
        """Whether its Skipif says that there is nothing to do."""
        if script.skip is None:
            return False
        if script.skip.test == "onpath":
            found = shutil.which(script.skip.subject, path=self._tools.environment.get("PATH")) is not None
        else:
            found = (self._tools.places.work(one.name) / Path(script.skip.subject).expanduser()).exists()
        return found is not script.skip.negated

    def _account(self, one: component.Component, script: scripts.Script) -> users.Account | None:
        """None for the nucleus's own user."""
        is_root = os.geteuid() == 0
        try:
            text = run_as.choose(
                one.run_with.posix_user, self._tools.defaults(), privileged=script.privileged, is_root=is_root
            )
            account = users.find(text) if text != run_as.OWN else None
        except run_as.NotChosen as error:
            raise Failure("MISSING_DEFAULT_RUNWITH", f"cannot run {one.name} {one.version}: {error}") from None
        except users.Unknown as error:
            raise Failure("CONFIG_NOT_VALID", f"cannot run {one.name} {one.version}: {error}") from None
        if account is None or users.is_own(account):
            return None
        if not is_root:
            why = "only a nucleus that runs as root can switch users"
            raise Failure("CONFIG_NOT_VALID", f"cannot run {one.name} {one.version} as {account.name}: {why}")
        return account

    def _prepare(self, one: component.Component, account: users.Account) -> None:
        """Its files become the user's, once per start. Raises OSError."""
        if self._owner == (account.uid, account.gid):
            return
        where = self._tools.places
        work = where.work(one.name)
        folders = (work, where.artifacts(one.name, one.version), where.unarchived(one.name, one.version))
        for folder in folders:
            if folder.is_dir():
                users.open_ways(where.root, folder)
        closed = users.closed_folder(account, work)
        if closed is not None:
            hint = f"allow it (chmod o+x {closed}) or keep the nucleus's root folder somewhere else"
            raise PermissionError(f"user {account.name} may not pass {closed}; {hint}")
        users.hand_over(account, folders)
        self._owner = (account.uid, account.gid)

    def _environment(
        self, one: component.Component, phase: Phase, script: scripts.Script, account: users.Account | None
    ) -> dict[str, str]:
        found = dict(self._tools.environment)
        if account is not None:
            home = account.home or str(self._tools.places.work(one.name))
            found |= {"HOME": home, "USER": account.name, "LOGNAME": account.name}
        found |= {"SVCUID": self._token, "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._token}
        if phase is Phase.UNINSTALL:
            found["GREENGRASS_COMPONENT_VERSION"] = one.version
        return found | script.environment
