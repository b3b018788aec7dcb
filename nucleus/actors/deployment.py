"""Carries out one deployment: negotiate, prepare, plan, ask for consent, commit, apply, watch, settle, or plan back.

Facts are written to the record before the act that needs them; every decision is recomputed from `core` (design.md
principle 2). So carrying on after a crash is calling `execute` again: what is in force already is seen in the configuration.
A cancellation is heard at every stage: before the commit nothing was changed, after it the way back is the ordinary one; on
the way back and at the very end it comes too late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from nucleus.actors import application, bootstrap, consent, preparation, standing, supervisor, validation
from nucleus.core import configuration, desired, document, errors, plan, progress, status
from nucleus.core import validation as validity
from nucleus.core.lifecycle import Effect, State
from nucleus.host import logs
from nucleus.store import components, deployments
from nucleus.store import configuration as configuration_store

T = TypeVar("T")

WRITE_AGAIN_S = 5.0  # after a write that the disk refused


class Parts(Struct, frozen=True):
    """What a deployment works with; made once by app.py."""

    store: deployments.DeploymentStore
    configuration: configuration_store.ConfigurationStore
    components: components.ComponentStore
    supervisor: supervisor.Supervisor
    preparation: preparation.Preparation
    bootstrapper: bootstrap.Bootstrapper
    consent: consent.Consent
    validation: validation.Validation
    log: logs.Log
    write_again_s: float = WRITE_AGAIN_S
    removal_s: float = application.REMOVAL_S


class Cancelled(Exception):  # noqa: N818  not an error
    """The deployment was cancelled before anything was changed."""


class Deployment:
    """One deployment being carried out. `say` is told, whenever it changes, what it waits for."""

    def __init__(self, parts: Parts, record: deployments.Record, say: Callable[[str], None]) -> None:
        self._parts = parts
        self._record = record
        self._say = say
        self._log = parts.log.bind(deployment=record.id)
        self._hands = application.Hands(parts.supervisor, say, self._log, parts.removal_s)
        self._cancelled = asyncio.Event()  # kept for what asks between two steps; `_interruptible` ends a wait at once
        self._interruptible: asyncio.Timeout | None = None
        self._ending = False
        self._asked = False
        if record.cancelled and record.failure is None:
            self._cancelled.set()

    def cancel(self, why: str) -> bool:
        """Ends it with the state of before restored. False: too late, it is on its way back already or has succeeded."""
        if self._ending or self._record.failure is not None:
            return False
        if self._cancelled.is_set():
            return True  # it is told more than once: by the list of jobs, by a refused report
        self._record.cancelled = why
        self._cancelled.set()
        if self._interruptible is not None:
            self._interruptible.reschedule(asyncio.get_running_loop().time())
        return True

    async def execute(self) -> status.Result:
        """Carries the deployment to its end. Raises Cancelled; every other failure is a result."""
        try:
            return await self._execute()
        finally:
            if self._asked:
                self._parts.consent.over(self._record.id)

    async def _execute(self) -> status.Result:
        if standing.is_settled(self._parts.configuration, self._record):
            return self._settled_result()
        if self._record.failure is None and not standing.is_committed(self._parts.configuration, self._record):
            try:
                await self._begin()
            except errors.NucleusError as error:
                self._log.error("deployment.refused", code=error.code, why=error.detail)
                return status.failure(progress.Failed((error.code,), error.detail), "FAILED_NO_STATE_CHANGE")
        going = self._parts.bootstrapper
        failed = self._record.failure or await going.restart(self._record, self._say) or await self._apply()
        if failed is None:
            return await self._settle()
        failure = progress.Failed(failed.stack, failed.cause)
        self._log.error("deployment.failed", why=failed.cause)
        must_return = self._record.cancelled or standing.must_return(self._record)
        if self._record.document.failure_policy == document.DO_NOTHING and not must_return:
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
            return status.success(self._hands.left)
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

    async def _unless_cancelled(self, work: Awaitable[T]) -> T:
        """Raises Cancelled as soon as somebody cancels, whatever `work` waits for."""
        try:
            async with asyncio.timeout(0 if self._cancelled.is_set() else None) as self._interruptible:
                return await work
        except (TimeoutError, errors.NucleusError) as error:
            if self._cancelled.is_set():
                raise Cancelled from error
            raise
        finally:
            self._interruptible = None

    # ---- up to the commit: nothing has changed yet -----------------------------------------------------------------

    async def _begin(self) -> None:
        record, parts = self._record, self._parts
        keep = standing.enter(parts.store, record)
        ready = await self._unless_cancelled(parts.preparation.prepare(record, self._say, self._cancelled, keep))
        record.resolved = {name: one.version for name, one in ready.resolved.items()}
        self._compose(ready)  # what cannot be is refused before anybody is asked
        await self._unless_cancelled(self._agree(ready))
        await self._unless_cancelled(self._fault("pause-before-activation"))
        await self._bootstrap(ready)
        if record.failure is not None:
            return
        before = parts.configuration.tree
        wanted = self._compose(ready)  # again: components may have written meanwhile
        for left in wanted.left:
            self._log.warning("deployment.placeholder_left", placeholder=left)
        record.previous = desired.installed(before)
        record.broken = tuple(
            sorted(name for name, one in parts.supervisor.health().items() if one.state is State.BROKEN)
        )
        record.undo = configuration.diff(wanted.tree, before)
        parts.store.save(record)
        if self._cancelled.is_set():
            raise Cancelled
        parts.configuration.commit((*wanted.changes, standing.mark(parts.configuration, record.id)))
        self._log.info("deployment.committed", changes=len(wanted.changes))

    async def _bootstrap(self, ready: preparation.Ready) -> None:
        """Bootstrap steps run to their ends; a cancellation meanwhile leads back, because they may have changed the machine."""
        record, tree = self._record, self._parts.configuration.tree
        record.previous = desired.installed(tree)
        await self._parts.bootstrapper.prepare(record, self._compose(ready), tree, self._say)
        if self._cancelled.is_set() and record.failure is None and record.bootstrap.forward:
            record.failure = deployments.Failure(("DEPLOYMENT_INTERRUPTED",), record.cancelled)

    def _compose(self, ready: preparation.Ready) -> desired.Desired:
        store, astray = self._parts.configuration, self._parts.configuration.is_astray()
        return self._parts.preparation.compose(self._record, ready, store.tree, store.now(), astray=astray)

    async def _agree(self, ready: preparation.Ready) -> None:
        """Component update policy, then configuration validation (spec/nucleus.md 5.10, 5.11). Raises NucleusError."""
        parts, wanted = self._parts, self._record.document
        if wanted.update_action == document.NOTIFY:
            self._asked = True
            await parts.consent.ask(self._record.id, wanted.update_timeout_s, self._say)
        running = {name for name, one in parts.supervisor.health().items() if one.state is State.RUNNING}
        before, after = parts.configuration.tree, self._compose(ready).tree
        await parts.validation.validate(
            self._record.id,
            validity.proposals(before, after, parts.validation.listening() & running),
            wanted.validation_timeout_s,
            self._say,
            silence_fails=wanted.validation_silence_fails,
        )

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
        record.changed = tuple(sorted(changed))
        self._parts.supervisor.keeper.forward(self._parts.store.origin(record), record.previous)
        expected = progress.Expectation(
            generations=self._hands.hand_over(target),
            changed=frozenset(changed),
            deadline_at=_deadline(record.document),
            watch_s=progress.watch_s(changed, record.document.watch_s, local=record.source == deployments.LOCAL),
        )
        try:
            verdict = await self._unless_cancelled(self._hands.watch(expected))
        except Cancelled:
            verdict = progress.Failed((), record.cancelled)
        if isinstance(verdict, progress.Done):
            return None
        record.failure = deployments.Failure(verdict.stack, verdict.cause)
        await self._durably(lambda: self._parts.store.save(record))
        return record.failure

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _settle(self) -> status.Result:
        """Records the group's roots; removes what nobody wants any more, only when the new state is proven."""
        record, parts, removed = self._record, self._parts, frozenset[str]()
        self._ending = True
        if record.failure is None:
            removed = desired.removable(parts.configuration.tree) - frozenset(record.resolved)
        await self._hands.remove(removed)

        def write() -> None:
            store = parts.configuration
            leaving = parts.preparation.left_groups(record, store.tree)
            changes = desired.settle(store.tree, record.document, leaving, removed, store.now())
            self._keep_way_back(changes)
            store.commit((*changes, standing.settled(store, record)))

        await self._durably(write)
        return self._settled_result()

    def _keep_way_back(self, changes: tuple[configuration.Change, ...]) -> None:
        """For the time in which success may be regretted: the way back from behind the last commit."""
        record, wanted = self._record, self._record.document
        unwanted = record.failure is not None or wanted.failure_policy == document.DO_NOTHING
        if unwanted or not wanted.regret_s or not record.changed:
            return
        before = self._parts.configuration.tree
        if record.regret_until_ms:
            return  # the write before it failed, and is tried again
        record.undo = (*configuration.diff(configuration.apply(before, changes), before), *record.undo)
        record.regret_until_ms = int((self._parts.configuration.wall_s() + wanted.regret_s) * 1000)
        self._parts.store.save(record)

    async def _roll_back(self, failure: progress.Failed) -> status.Result:
        record, parts = self._record, self._parts
        await self._durably(lambda: parts.store.save(record))
        await self._durably(lambda: standing.roll_back_configuration(parts.configuration, record))
        stuck = await parts.bootstrapper.back(record, self._say)
        previous = record.previous or {}
        parts.supervisor.keeper.back(parts.store.origin(record), previous)
        expected = progress.Expectation(
            generations=self._hands.hand_over(previous, excused=record.broken),
            changed=frozenset(),
            excused=plan.with_dependents(record.broken, previous),
            deadline_at=_deadline(record.document),
            watch_s=0.0,
        )
        await self._hands.remove(frozenset(parts.supervisor.health()) - frozenset(previous))
        verdict = await self._hands.watch(expected)
        failure = progress.Failed(failure.stack, failure.cause + parts.supervisor.keeper.said() + self._hands.said())
        if stuck or isinstance(verdict, progress.Failed):
            why = verdict.cause if isinstance(verdict, progress.Failed) else stuck
            also = progress.Failed(failure.stack, f"{failure.cause}. The way back failed too: {why}")
            return status.failure(also, "FAILED_UNABLE_TO_ROLLBACK")
        if record.cancelled:
            return status.canceled(f"{record.cancelled}; what it had changed is restored")
        return status.failure(failure, "FAILED_ROLLBACK_COMPLETE")


def _deadline(wanted: document.Document) -> float:
    return time.monotonic() + wanted.deadline_s if wanted.deadline_s else 0.0
