"""Runs the Bootstrap step of one component, as its user, in its work folder, and tells how it ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from msgspec import Struct

from nucleus.core import bootstrap, component, errors, run_as, scripts
from nucleus.host import files, logs, places, process, users


class Steps(Struct, frozen=True):
    """`environment` are the variables all components have in common, `defaults` who runs what names no user.

    `style` is that of the daemon's log.
    """

    places: places.Places
    environment: Mapping[str, str]
    defaults: Callable[[], run_as.Defaults]
    style: logs.Style | None = None

    async def run(self, one: component.Component) -> int:
        """The step's exit code, whatever it is (minus a signal's number).

        Raises NucleusError COMPONENT_BOOTSTRAP_TIMEOUT or COMPONENT_BOOTSTRAP_ERROR (it cannot be started).
        """
        what = f"the Bootstrap step of {one.name} {one.version}"
        try:
            script = scripts.read_step(one, bootstrap.PHASE, bootstrap.TIMEOUT_S)
            if script is None:
                return bootstrap.NOTHING
            order = await self._order(one, script)
            return await self._to_its_end(order, script.timeout_s, one.name)
        except TimeoutError:
            why = f"{what} did not end within {script.timeout_s if script else 0:g} s"
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_TIMEOUT", why) from None
        except (scripts.NotValid, run_as.NotChosen, users.Unknown, OSError, ValueError) as error:
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", f"cannot start {what}: {error}") from error

    async def _to_its_end(self, order: process.Order, timeout_s: float, name: str) -> int:
        processes = process.Processes(self.places.processes)
        writer = logs.output(self.places.logs / f"{name}.log", name, self.style)

        def sink(stream: str, lines: list[str]) -> None:
            writer.write(stream, lines, phase=bootstrap.PHASE, state="")

        try:
            child = processes.spawn(order, sink)
            async with asyncio.timeout(timeout_s or None):
                return await child.wait()
        finally:
            await processes.end(order.component)
            processes.close()
            writer.close()

    async def _order(self, one: component.Component, script: scripts.Script) -> process.Order:
        defaults, directory = self.defaults(), self.places.work(one.name)
        account = self._account(one, script, defaults)
        environment = {**self.environment, **script.environment}
        files.make_directory(directory, 0o700)
        if account is not None:
            environment = {"USER": account.name, "LOGNAME": account.name, **environment, "HOME": account.home or "/"}
            await asyncio.to_thread(self._hand_over, one, account)
        return process.Order(
            component=f"{one.name}+bootstrap",  # a mark of its own: ending what it left must not end the component
            version=one.version,
            script=script.text,
            directory=directory,
            environment=environment,
            shell=defaults.posix_shell,
            account=account,
        )

    def _account(
        self, one: component.Component, script: scripts.Script, defaults: run_as.Defaults
    ) -> users.Account | None:
        is_root = os.geteuid() == 0
        text = run_as.choose(one.run_with.posix_user, defaults, privileged=script.privileged, is_root=is_root)
        account = users.find(text) if text != run_as.OWN else None
        if account is None or users.is_own(account):
            return None
        if not is_root:
            raise ValueError(f"only a nucleus that runs as root can run it as {account.name}")
        return account

    def _hand_over(self, one: component.Component, account: users.Account) -> None:
        folders = (
            self.places.work(one.name),
            self.places.artifacts(one.name, one.version),
            self.places.unarchived(one.name, one.version),
        )
        for folder in folders:
            if folder.is_dir():
                users.open_ways(self.places.root, folder)
        users.hand_over(account, folders)
