"""Carries out one deployment: negotiate, prepare, plan, commit, apply, watch, settle, or plan back.

Facts are written to the record before the act that needs them; every decision is recomputed from `core` (design.md
principle 2). So carrying on after a crash is calling `execute` again: what is in force already is seen in the configuration.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from nucleus.actors import preparation, standing, supervisor
from nucleus.core import configuration, desired, document, errors, plan, progress, status
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, State
from nucleus.host import logs
from nucleus.store import components, deployments
from nucleus.store import configuration as configuration_store

REMOVAL_S = 180.0  # Shutdown 15 s, processes 5 s each, Uninstall 120 s
WRITE_AGAIN_S = 5.0  # after a write that the disk refused


class Parts(Struct, frozen=True):
    """What a deployment works with; made once by app.py."""

    store: deployments.DeploymentStore
    configuration: configuration_store.ConfigurationStore
    components: components.ComponentStore
    supervisor: supervisor.Supervisor
    preparation: preparation.Preparation
    log: logs.Log
    write_again_s: float = WRITE_AGAIN_S


class Cancelled(Exception):  # noqa: N818  not an error
    """The deployment was cancelled before anything was changed."""


class Deployment:
    """One deployment being carried out. `say` is told, whenever it changes, what it waits for."""

    def __init__(self, parts: Parts, record: deployments.Record, say: Callable[[str], None]) -> None:
        self._parts = parts
        self._record = record
        self._say = say
        self._log = parts.log.bind(deployment=record.id)
        self.cancelled = asyncio.Event()

    async def execute(self) -> status.Result:
        """Carries the deployment to its end. Raises Cancelled; every other failure is a result."""
        if standing.is_settled(self._parts.configuration, self._record):
            return self._settled_result()
        if self._record.failure is None and not standing.is_committed(self._parts.configuration, self._record):
            try:
                await self._begin()
            except errors.NucleusError as error:
                if self.cancelled.is_set():
                    raise Cancelled from error
                self._log.error("deployment.refused", code=error.code, why=error.detail)
                return status.failure(progress.Failed((error.code,), error.detail), "FAILED_NO_STATE_CHANGE")
        failed = self._record.failure or await self._apply()
        if failed is None:
            return await self._settle()
        failure = progress.Failed(failed.stack, failed.cause)
        self._log.error("deployment.failed", why=failed.cause)
        if self._record.document.failure_policy == document.DO_NOTHING:
            return await self._settle()
        return await self._roll_back(failure)

    async def fail(self, why: BaseException) -> status.Result:
        """The end after a fault of the nucleus itself: back if anything was changed. Raises if the way back fails too."""
        detail = f"{type(why).__name__}: {why}"
        if not standing.is_committed(self._parts.configuration, self._record):
            failed = progress.Failed(("DEPLOYMENT_INTERRUPTED",), detail)
            return status.failure(failed, "FAILED_NO_STATE_CHANGE")
        self._record.failure = self._record.failure or deployments.Failure(("DEPLOYMENT_INTERRUPTED",), detail)
        return await self.execute()

    def _settled_result(self) -> status.Result:
        failed = self._record.failure
        if failed is None:
            return status.success()
        return status.failure(progress.Failed(failed.stack, failed.cause), "FAILED_ROLLBACK_NOT_REQUESTED")

    async def _durably(self, write: Callable[[], None]) -> None:
        """A write that must not be lost once something has changed: waits for a disk that takes it, and says so."""
        while True:
            try:
                return write()
            except errors.NucleusError as error:
                self._say(error.detail)
                self._log.error("deployment.cannot_write", code=error.code, why=error.detail)
            await asyncio.sleep(self._parts.write_again_s)

    # ---- up to the commit: nothing has changed yet -----------------------------------------------------------------

    async def _begin(self) -> None:
        record, parts = self._record, self._parts
        ready = await parts.preparation.prepare(record, self._say, self.cancelled)
        before = parts.configuration.tree
        record.resolved = {name: one.version for name, one in ready.resolved.items()}
        wanted = parts.preparation.compose(record, ready, before, parts.configuration.now())
        for left in wanted.left:
            self._log.warning("deployment.placeholder_left", placeholder=left)
        record.previous = desired.installed(before)
        record.broken = tuple(
            sorted(name for name, one in parts.supervisor.health().items() if one.state is State.BROKEN)
        )
        record.undo = configuration.diff(wanted.tree, before)
        parts.store.save(record)
        await self._fault("pause-before-activation")
        if self.cancelled.is_set():
            raise Cancelled
        parts.configuration.commit((*wanted.changes, standing.mark(parts.configuration, record.id)))
        self._log.info("deployment.committed", changes=len(wanted.changes))

    async def _fault(self, name: str) -> None:
        """A switch for tests and the demo: the file `<root>/fault` holds `<name>:<seconds>` (README, Faults on purpose)."""
        try:
            found, _, seconds = self._parts.preparation.fault_file.read_text().strip().partition(":")
        except OSError:
            return
        if found == name:
            self._say(f"fault switch {name}")
            self._log.warning("deployment.fault_switch", name=name, seconds=seconds)
            await asyncio.sleep(float(seconds))

    # ---- apply and watch ---------------------------------------------------------------------------------------------

    async def _apply(self) -> deployments.Failure | None:
        record = self._record
        installed = desired.installed(self._parts.configuration.tree)
        target = {name: one for name, one in installed.items() if name in record.resolved}
        changed = {
            step.component.name: step.component
            for step in plan.plan(record.previous or {}, target, broken=record.broken).steps
            if step.effect is not Effect.KEEP
        }
        local = record.source == deployments.LOCAL
        expected = progress.Expectation(
            generations=self._hand_over(target),
            changed=frozenset(changed),
            deadline_at=_deadline(record.document),
            watch_s=progress.watch_s(changed, record.document.watch_s, local=local),
        )
        verdict = await self._watch(expected)
        if isinstance(verdict, progress.Done):
            return None
        record.failure = deployments.Failure(verdict.stack, verdict.cause)
        await self._durably(lambda: self._parts.store.save(record))
        return record.failure

    def _hand_over(self, target: Mapping[str, Component]) -> dict[str, int]:
        """Gives the supervisor every step of the way from what it has to `target`; removals are not part of it."""
        running = self._parts.supervisor
        health = running.health()
        actual = {name: one for name in health if (one := running.component(name)) is not None}
        broken = [name for name, one in health.items() if one.state is State.BROKEN and name not in self._excused()]
        way = plan.plan(actual, target, broken=broken)
        generations = {}
        for step in way.steps:
            name = step.component.name
            if step.effect is Effect.KEEP and actual.get(name) == step.component:
                generations[name] = health[name].generation
                continue
            self._log.info("deployment.step", component=name, effect=step.effect.value, reason=step.reason)
            generations[name] = running.adopt(step.component, step.effect)
        return generations

    def _excused(self) -> tuple[str, ...]:
        """On the way back, components that were BROKEN before are left alone (spec/nucleus.md 5.8)."""
        return self._record.broken if self._record.failure is not None else ()

    async def _watch(self, expected: progress.Expectation) -> progress.Done | progress.Failed:
        running = self._parts.supervisor
        watch: progress.Watch | None = None
        while True:
            seen = running.revision
            verdict = progress.judge(expected, running.health(), watch, time.monotonic())
            if not isinstance(verdict, progress.Waiting):
                return verdict
            watch = verdict.watch
            self._say(verdict.reason)
            try:
                async with asyncio.timeout(verdict.look_again_s):
                    await running.changed(seen)
            except TimeoutError:
                continue

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> status.Result:
        """Records the group's roots; removes what nobody wants any more, only when the new state is proven."""
        record, parts = self._record, self._parts
        removed: frozenset[str] = frozenset()
        if record.failure is None:
            removed = frozenset(desired.installed(parts.configuration.tree)) - frozenset(record.resolved)
        await self._remove(removed)

        def write() -> None:
            store = parts.configuration
            leaving = parts.preparation.left_groups(record, store.tree)
            changes = desired.settle(store.tree, record.document, leaving, removed, store.now())
            store.commit((*changes, standing.settled(store, record)))

        await self._durably(write)
        return self._settled_result()

    async def _remove(self, names: frozenset[str]) -> None:
        running = self._parts.supervisor
        for name in plan.plan({n: c for n in names if (c := running.component(n)) is not None}, {}).removals:
            self._log.info("deployment.removing", component=name.name, reason=name.reason)
            running.remove(name.name)
        try:
            async with asyncio.timeout(REMOVAL_S):
                while left := sorted(names & running.health().keys()):
                    self._say(f"removing {', '.join(left)}")
                    await running.changed(running.revision)
        except TimeoutError:
            self._log.error(
                "deployment.removal_timed_out", components=", ".join(sorted(names & running.health().keys()))
            )

    async def _roll_back(self, failure: progress.Failed) -> status.Result:
        record, parts = self._record, self._parts
        await self._durably(lambda: parts.store.save(record))
        await self._durably(lambda: standing.roll_back_configuration(parts.configuration, record))
        previous = record.previous or {}
        expected = progress.Expectation(
            generations=self._hand_over(previous),
            changed=frozenset(),
            excused=plan.with_dependents(record.broken, previous),
            deadline_at=_deadline(record.document),
            watch_s=0.0,
        )
        await self._remove(frozenset(parts.supervisor.health()) - frozenset(previous))
        verdict = await self._watch(expected)
        if isinstance(verdict, progress.Failed):
            also = progress.Failed(failure.stack, f"{failure.cause}. The way back failed too: {verdict.cause}")
            return status.failure(also, "FAILED_UNABLE_TO_ROLLBACK")
        return status.failure(failure, "FAILED_ROLLBACK_COMPLETE")


def _deadline(wanted: document.Document) -> float:
    return time.monotonic() + wanted.deadline_s if wanted.deadline_s else 0.0
