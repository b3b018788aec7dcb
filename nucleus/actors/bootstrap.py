"""Runs Bootstrap steps, installs another version of the nucleus itself, and sends the daemon down to come back.

What is to be done is computed by `core/bootstrap.py` from facts in the deployment's record; each is durable before the act
that follows from it. Bootstrap steps run while the old state is in force; what is committed comes up after the restart.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import structs

from nucleus.actors import bootstrap_step, leaving, supervisor
from nucleus.core import bootstrap, builtin, component, configuration, desired, errors, release
from nucleus.core.lifecycle import Effect, State
from nucleus.host import launch, logs, places, process
from nucleus.store import deployments

QUIET_S = 60.0  # Shutdown 15 s, processes 5 s, and some air

Say = Callable[[str], None]


class Bootstrapper:
    """`leave(code)` begins the daemon's orderly end with that exit code; `nucleus` gives the nucleus's configuration.

    `launch_id` tells this launch of the daemon from others.
    """

    def __init__(
        self,
        *,
        where: places.Places,
        launches: launch.Launches,
        steps: bootstrap_step.Steps,
        records: deployments.DeploymentStore,
        running: supervisor.Supervisor,
        leave: Callable[[int], None],
        nucleus: Callable[[], Mapping[str, Any]],
        log: logs.Log,
        version: str = release.VERSION,
    ) -> None:
        self.launches = launches
        self.launch_id = secrets.token_hex(8)
        self._places = where
        self._steps = steps
        self._records = records
        self._running = running
        self._leave_with = leave
        self._nucleus = nucleus
        self._log = log
        self._version = version

    # ---- forward -------------------------------------------------------------------------------------------------

    async def prepare(
        self, record: deployments.Record, wanted: desired.Desired, before: configuration.Tree, say: Say
    ) -> None:
        """Before the commit: everything that may still fail without a change of the configuration.

        Sets `record.failure` when a Bootstrap step failed (it may have changed the machine). Raises NucleusError when
        another version of the nucleus cannot be launched (nothing has changed).
        """
        say("preparing the nucleus's own update")
        own = await self._own_update(record, wanted.components.get(release.COMPONENT))
        keys = bootstrap.restart_keys(_nucleus(before), _nucleus(wanted.tree))
        previous = record.previous or {}
        others = (one for name, one in wanted.components.items() if name != release.COMPONENT)
        alone = all(previous.get(one.name) == one for one in others)
        self._note(record, own=own, restart_keys=keys, alone=alone)
        tasks = bootstrap.forward(record.previous or {}, wanted.components)
        failure = await self._run_pending(record, tasks, "forward", say)
        if failure is not None:
            record.failure = failure
            self._records.save(record)

    async def restart(self, record: deployments.Record, say: Say) -> deployments.Failure | None:
        """After the commit: goes down if something asks for that (then it does not return), else returns at once."""
        facts = record.bootstrap
        other = facts.own is not None and facts.own.new != self._version
        code = bootstrap.owed(facts.forward, restart=other or bool(facts.restart_keys))
        code = bootstrap.still_owed(code, facts.asked, launch=self.launch_id, boot=process.boot_id())
        if code:
            if facts.own is not None and other:
                await asyncio.to_thread(self.launches.switch, facts.own.directory)
            self._note(record, asked=self._ask(code, facts.asked))
            await self._leave(leaving.HAND_OVER if other and bootstrap.may_hand_over(facts) else code, say)
        if facts.own is not None and other:
            cause = f"the nucleus was restarted for version {facts.own.new}, but {self._version} came up"
            record.failure = deployments.Failure(("NUCLEUS_RESTART_FAILURE",), cause)
        return record.failure

    # ---- back ----------------------------------------------------------------------------------------------------

    async def back(self, record: deployments.Record, say: Say) -> str:
        """After the configuration was restored: `BootstrapOnRollback` steps, the old nucleus; may go down, too.

        Returns why the way back is not whole, or "".
        """
        facts, previous = record.bootstrap, record.previous or {}
        tasks = bootstrap.backward(previous, record.resolved, facts.forward)
        failure = await self._run_pending(record, tasks, "back", say)
        facts = record.bootstrap
        stays = ""
        if facts.own is not None and self.launches.current() == facts.own.directory:
            stays = await self._own_back(facts.own)
        other = facts.own is not None and facts.own.old != self._version and not stays
        in_force = facts.asked is not None and bool(facts.restart_keys)
        code = bootstrap.owed(facts.back, restart=other or in_force)
        code = bootstrap.still_owed(code, facts.asked_back, launch=self.launch_id, boot=process.boot_id())
        if code:
            self._note(record, asked_back=self._ask(code, facts.asked_back))
            await self._leave(code, say)
        await self._start_again(facts.forward, previous)
        return failure.cause if failure is not None else stays

    async def _own_back(self, own: bootstrap.OwnUpdate) -> str:
        """Lets the old version be started next; returns why that cannot be, or ""."""
        if await asyncio.to_thread(self.launches.back):
            return ""
        return (
            f"the nucleus stays at version {self._version}, because {own.old} is not in a launch directory any more; "
            f"deploy {release.COMPONENT} {own.old} to go back"
        )

    async def tidy(self, records: Collection[deployments.Record]) -> None:
        """Drops launch directories that no deployment needs which is open, or may still be regretted: thousands of files,
        so not in this thread."""
        if any((one.result is None or one.undo) and one.bootstrap.own is not None for one in records):
            return
        try:
            await asyncio.to_thread(self.launches.tidy, ())
        except errors.NucleusError as error:  # a full disk; the next deployment tries again
            self._log.warning("nucleus.launches_not_tidied", why=error.detail)

    # ---- Bootstrap steps --------------------------------------------------------------------------------------------

    async def _run_pending(
        self, record: deployments.Record, tasks: tuple[bootstrap.Task, ...], way: str, say: Say
    ) -> deployments.Failure | None:
        """Runs what has not returned yet, one after another; the first failure ends it."""
        todo = bootstrap.pending(tasks, getattr(record.bootstrap, way))
        await self._quiet([task.component.name for task in todo])
        for task in todo:
            one = task.component
            say(f"Bootstrap of {one.name} {one.version} ({task.reason})")
            try:
                await self._run_counted(record, one, way)
            except errors.NucleusError as error:
                self._log.error("bootstrap.failed", deployment=record.id, component=one.name, why=error.detail)
                return deployments.Failure((error.code,), error.detail)
        return None

    async def _run_counted(self, record: deployments.Record, one: component.Component, way: str) -> None:
        facts: dict[str, bootstrap.Fact] = getattr(record.bootstrap, way)
        fact = bootstrap.begun(facts, one)
        if fact.starts > bootstrap.MAX_STARTS:
            why = f"the Bootstrap step of {one.name} {one.version} took the nucleus down {bootstrap.MAX_STARTS} times"
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", why)
        self._note(record, **{way: {**facts, one.name: fact}})
        self._log.info("bootstrap.started", deployment=record.id, component=one.name, version=one.version)
        code = await self._steps.run(one)
        self._log.info("bootstrap.ended", deployment=record.id, component=one.name, code=code)
        if code not in (bootstrap.NOTHING, bootstrap.RESTART, bootstrap.REBOOT):
            why = (
                f"the Bootstrap step of {one.name} {one.version} ended with exit code {code} (see logs/{one.name}.log)"
            )
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", why)
        self._note(record, **{way: {**facts, one.name: structs.replace(fact, exit_code=code)}})

    # ---- the nucleus itself ----------------------------------------------------------------------------------------

    async def _own_update(
        self, record: deployments.Record, wanted: component.Component | None
    ) -> bootstrap.OwnUpdate | None:
        """Makes another version ready to be launched and lets it test itself. Raises NucleusError."""
        if wanted is None or wanted.version == self._version:
            return None
        if why := self.launches.why_fixed():
            raise errors.NucleusError(
                "LAUNCH_DIRECTORY_CORRUPTED", f"cannot update the nucleus to {wanted.version}: {why}"
            )
        wheels = self._places.unarchived(wanted.name, wanted.version)
        folder = next((path for path in sorted(wheels.glob("*")) if any(path.glob("marram-*.whl"))), None)
        if folder is None:
            why = f"cannot update the nucleus to {wanted.version}: no archive of the component holds a wheel of marram"
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", why)
        name = self._records.path(record).name
        await asyncio.to_thread(self.launches.install, name, folder, f"marram=={wanted.version}")
        said = await asyncio.to_thread(self.launches.selftest, name)
        if said != wanted.version:
            why = f"cannot update the nucleus to {wanted.version}: what was installed says it is {said!r}"
            raise errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", why)
        self._log.info("nucleus.update_ready", deployment=record.id, version=wanted.version, directory=name)
        return bootstrap.OwnUpdate(self._version, wanted.version, name)

    # ---- small things ------------------------------------------------------------------------------------------------

    async def _leave(self, code: int, say: Say) -> None:
        what = "a reboot of the machine" if code == bootstrap.REBOOT else "a restart of the nucleus"
        say(f"going down for {what}")
        self._log.info("nucleus.going_down", code=code, why=what)
        if code == bootstrap.REBOOT:
            self.launches.set_reboot_command(str((self._nucleus().get("marram") or {}).get("rebootCommand") or ""))
        self._leave_with(code)
        await asyncio.Event().wait()  # the daemon, which is stopping, cancels this: no deadline

    def _ask(self, code: int, before: bootstrap.Asked | None) -> bootstrap.Asked:
        times = before.times + 1 if before is not None and before.code == code else 1
        return bootstrap.Asked(code, self.launch_id, process.boot_id(), times)

    def _note(self, record: deployments.Record, **facts: object) -> None:
        """Makes facts durable before anything is done because of them."""
        after = structs.replace(record.bootstrap, **facts)
        if after != record.bootstrap:
            record.bootstrap = after
            self._records.save(record)

    async def _quiet(self, names: list[str]) -> None:
        """Stops the running versions of components whose Bootstrap is about to run (spec/nucleus.md 2.8)."""
        stopping = {name for name in names if self._running.stop_component(name)}
        try:
            async with asyncio.timeout(QUIET_S):
                while any(self._is_busy(name) for name in stopping):
                    await self._running.changed(self._running.revision)
        except TimeoutError:
            self._log.warning("bootstrap.not_quiet", components=", ".join(sorted(stopping)))

    async def _start_again(self, names: Collection[str], previous: Mapping[str, component.Component]) -> None:
        """Starts what was stopped for a Bootstrap step and is wanted as it was."""
        health = self._running.health()
        idle = [
            name for name in names if name in previous and name in health and health[name].state is not State.RUNNING
        ]
        wanted = {name: self._running.adopt(previous[name], Effect.RESTART) for name in idle}
        async with asyncio.timeout(QUIET_S):
            while any(self._running.health()[name].generation < least for name, least in wanted.items()):
                await self._running.changed(self._running.revision)

    def _is_busy(self, name: str) -> bool:
        one = self._running.health().get(name)
        return one is not None and (bool(one.pids) or one.state in (State.STARTING, State.RUNNING, State.STOPPING))


def _nucleus(tree: configuration.Tree) -> Mapping[str, object]:
    found: Mapping[str, object] = configuration.plain(
        configuration.subtree(tree, ("services", builtin.NUCLEUS, "configuration"))
    )
    return found
