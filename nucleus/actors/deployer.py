"""The queue of deployments: accepts, orders, carries out one at a time.

A deployment is durable before anything is done for it. Order: as they were accepted; a new shadow deployment takes the
place of a queued one, and of a running one, which is taken back. No deployment ends the daemon: what goes wrong is its
result.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from nucleus.actors import deployment, overtaking, regret, reporter, retention, safe_mode, standing
from nucleus.core import desired, document, errors, local, progress
from nucleus.core import status as statuses
from nucleus.host import logs
from nucleus.store import deployments

LATEST_MS = 1 << 62
MAX_QUEUED = 100  # deployments waiting; more are refused (the cloud keeps them and tells again)


class Deployer:
    """Owns the records of all deployments. `sources` maps deployments.JOB, SHADOW to their reporters."""

    def __init__(
        self,
        parts: deployment.Parts,
        *,
        sources: Mapping[str, reporter.Source],
        on_end: Callable[[deployments.Record], None],
        log: logs.Log,
    ) -> None:
        self._parts = parts
        self._on_end = on_end
        self._log = log
        self._records: list[deployments.Record] = []
        self._reporter = reporter.Reporter(self._records, parts.store, sources, log)
        self._regret = regret.Regret(
            self._records, parts.configuration, parts.supervisor, submit=self.submit, save=self._reporter.save, log=log
        )
        self._overtaking = overtaking.Overtaking(self._records, parts.preparation.is_unanswered, log)
        self._current: deployment.Deployment | None = None
        self._current_id = ""
        self._work = asyncio.Event()
        self._files = asyncio.Lock()  # the recipes of a local deployment are not cleaned away before it is accepted

    def add_source(self, name: str, source: reporter.Source) -> None:
        self._reporter.add_source(name, source)

    def restore(self, *, handed_over: bool = False) -> frozenset[str]:
        """Reads the records at launch, plans back those that crash it again and again; returns what may start."""
        found, bad = self._parts.store.load()
        self._records.extend(found)
        for sentence in bad:
            self._log.error("deployment.record_lost", why=sentence)
        launches = self._parts.bootstrapper.launches
        try:
            standing.heed_panic(self._parts.store, self._parts.configuration, self._records, launches, self._log)
            if not handed_over:
                standing.give_up_on_loops(self._parts.store, self._parts.configuration, self._records, self._log)
                standing.give_up_before_commit(self._parts.store, self._parts.configuration, found, self._log)
            allowed = safe_mode.at_launch(self._parts.store, self._parts.configuration, self._records, self._log)
        except errors.NucleusError as error:  # a full disk must not keep the components from starting
            self._log.error("deployment.cannot_write", code=error.code, why=error.detail)
            allowed = frozenset(desired.installed(self._parts.configuration.tree))
        for one in (one for one in found if one.result is None and one.previous is not None):
            keeper = self._parts.supervisor.keeper
            (keeper.back if one.failure is not None else keeper.forward)(self._parts.store.origin(one), one.previous)
        return allowed

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reporter.run())
            while True:
                record = self._overtaking.next()
                if record is not None:
                    await self._carry_out(record)
                    continue
                self._work.clear()
                await self._regret.until(self._work)

    # ---- what sources and the IPC ask ----------------------------------------------------------------------------

    def submit(self, record: deployments.Record) -> None:
        """Accepts a deployment durably; a duplicate delivery only makes its result be reported again."""
        known = self._find(record.id)
        if known is not None and not standing.again(known, record):
            if known.result is not None:
                self._reporter.again(known)
            return
        if self._is_full():
            self._log.error("deployment.queue_full", deployment=record.id)
            return
        if known is not None:
            self._records.remove(known)
        if record.source == deployments.SHADOW:
            self._cancel(lambda one: one.source == deployments.SHADOW, f"replaced by deployment {record.id}")
        self._log.info("deployment.queued", deployment=record.id, source=record.source)
        record.result = standing.stale(self._parts.configuration, record)
        self._accept(record)

    def refuse(self, record: deployments.Record, error: errors.NucleusError) -> None:
        """Takes a document that cannot be read, only to report why."""
        known = self._find(record.id)
        if known is not None:
            self._reporter.again(known)
            return
        record.result = statuses.rejected(error.code, error.detail)
        self._accept(record)

    def cancel(self, source: str, carrier: str) -> None:
        """Cancels the deployment of a carrier, queued or running; what a running one has changed is restored."""
        self._cancel(lambda one: one.source == source and carrier == one.carrier, "cancelled in the cloud")

    def keep_jobs(self, listed: frozenset[str], *, before_ms: int = LATEST_MS) -> None:
        """Cancels every job queued before a moment of the service's clock that the service does not list as pending."""

        def is_gone(one: deployments.Record) -> bool:
            return one.source == deployments.JOB and one.carrier not in listed and one.queued_ms < before_ms

        self._cancel(is_gone, "the cloud does not want it any more (cancelled, replaced or timed out there)")

    def cancel_local(self, deployment_id: str) -> bool:
        """Cancels a local deployment, queued or running. False: it has ended, or is on its way back already."""
        return self._cancel(
            lambda one: one.source == deployments.LOCAL and one.id == deployment_id, "cancelled on the device"
        )

    async def create_local(self, request: local.LocalRequest, caller: str) -> str:
        """Accepts a local deployment (spec/nucleus.md 5.2); returns its id. Raises NucleusError."""
        if self._is_full():
            raise errors.NucleusError("DEPLOYMENT_REJECTED", f"cannot deploy: {MAX_QUEUED} deployments wait already")
        recipes = Path(request.recipe_directory) if request.recipe_directory else None
        artifacts = Path(request.artifacts_directory) if request.artifacts_directory else None
        async with self._files:
            taken = await asyncio.to_thread(self._parts.components.take_local, recipes, artifacts)
            self._log.info("deployment.local_files", components=[" ".join(one) for one in taken], caller=caller)
            now = self._parts.configuration.now()
            group = document.local_group(request)
            roots = self._roots(group)
            for one in (one for one in self._records if one.result is None and one.document.group == group):
                roots = {name: wish.version for name, wish in one.document.components.items()}
            wanted = document.local(request, deployment_id=str(uuid.uuid4()), created_ms=now, running_roots=roots)
            record = deployments.Record(
                document=wanted, source=deployments.LOCAL, queued_ms=now, caller=caller, taken=taken, request=request
            )
            self.submit(record)
        return record.id

    def status(self, deployment_id: str) -> local.LocalStatus | None:
        record = self._find(deployment_id)
        return self._standing(record) if record is not None and record.source == deployments.LOCAL else None

    def list(self) -> list[local.LocalStatus]:
        return [self._standing(one) for one in self._records if one.source == deployments.LOCAL]

    def wake_reports(self) -> None:
        """Called after every connection: what was not confirmed is sent again."""
        self._reporter.wake()

    # ---- the work ------------------------------------------------------------------------------------------------

    async def _carry_out(self, record: deployments.Record) -> None:
        self._log.info("deployment.started", deployment=record.id, group=record.document.group)
        self._current = deployment.Deployment(self._parts, record, lambda text: self._say(record, text))
        self._current_id = record.id
        self._reporter.say(record, "starting")
        try:
            record.result = self._refresh(record) or await self._overtaking.carry(record, self._execute(self._current))
        finally:
            self._current, self._current_id = None, ""
        if record.result is None:
            return  # it has given way
        self._finish(record)
        async with self._files:
            self._clean()
        await self._parts.bootstrapper.tidy(self._records)

    def _say(self, record: deployments.Record, text: str) -> None:
        self._reporter.say(record, text)
        self._overtaking.look()

    async def _execute(self, one: deployment.Deployment) -> statuses.Result:
        try:
            return await one.execute()
        except deployment.Cancelled:
            return statuses.canceled("cancelled before anything was changed")
        except Exception as error:  # our own fault, or a disk's: it must end this deployment, not the daemon
            self._log.error("deployment.fault", deployment=self._current_id, why=f"{type(error).__name__}: {error}")
            fault = error
        try:
            return await one.fail(fault)
        except Exception as error:
            self._log.error("deployment.fault", deployment=self._current_id, why=f"{type(error).__name__}: {error}")
            failed = progress.Failed(("DEPLOYMENT_INTERRUPTED",), f"{type(error).__name__}: {error}")
            return statuses.failure(failed, "FAILED_UNABLE_TO_ROLLBACK")

    def _refresh(self, record: deployments.Record) -> statuses.Result | None:
        """What may have changed while it was queued: a newer revision was carried out, or other local deployments."""
        if record.previous is not None:
            return None  # it had begun
        if record.request is not None:
            try:
                record.document = document.local(
                    record.request,
                    deployment_id=record.id,
                    created_ms=record.document.created_ms,
                    running_roots=self._roots(record.document.group),
                )
            except errors.NucleusError as error:
                return statuses.failure(progress.Failed((error.code,), error.detail), "FAILED_NO_STATE_CHANGE")
        return standing.stale(self._parts.configuration, record)

    def _accept(self, record: deployments.Record) -> None:
        record.number = max((one.number for one in self._records), default=0) + 1
        if record.result is None and all(one.result is not None for one in self._records):
            standing.begin(record)  # it begins at once: a durable write less
        try:
            standing.forget(self._parts.configuration, record)
            self._parts.store.save(record)
        except errors.NucleusError as error:
            self._log.error("deployment.cannot_write", deployment=record.id, code=error.code, why=error.detail)
            failed = progress.Failed((error.code,), error.detail)
            record.result = record.result or statuses.failure(failed, "FAILED_NO_STATE_CHANGE")
        self._records.append(record)
        if record.result is not None:
            self._finish(record)
        self._work.set()
        self._reporter.wake()
        self._overtaking.look()

    def _finish(self, record: deployments.Record) -> None:
        assert record.result is not None
        if record.result.status != statuses.SUCCEEDED or not record.regret_until_ms:
            record.undo = ()  # nothing leads back any more
        if record.result.status == statuses.CANCELED and record.source == deployments.JOB:
            record.reported = True  # the service cancelled it: it knows, and refuses reports
        self._reporter.save(record)
        self._log.info(
            "deployment.ended",
            deployment=record.id,
            status=record.result.status,
            detailed=record.result.detailed,
            cause=record.result.cause,
        )
        safe_mode.leave(self._parts.configuration, record, self._log)
        self._on_end(record)
        self._reporter.ended(record)

    def _clean(self) -> None:
        running = self._parts.supervisor.health()
        keep = retention.kept(self._records, self._parts.configuration.tree, self._regret.candidate(), running)
        removed = self._parts.components.clean(keep)
        if removed:
            self._log.info("components.cleaned", removed=", ".join(removed))
        self._parts.store.prune(self._records)
        done = [one for one in self._records if one.result is not None and one.reported]
        for old in done[: -deployments.KEEP_FINISHED]:
            self._records.remove(old)

    # ---- small questions -----------------------------------------------------------------------------------------

    def _find(self, deployment_id: str) -> deployments.Record | None:
        return next((one for one in self._records if one.id == deployment_id), None)

    def _roots(self, group: str) -> dict[str, str]:
        return desired.roots(self._parts.configuration.tree).get(group, {})

    def _standing(self, record: deployments.Record) -> local.LocalStatus:
        return reporter.local_status(record, running=record.id == self._current_id)

    def _is_full(self) -> bool:
        return len([one for one in self._records if one.result is None]) >= MAX_QUEUED

    def _cancel(self, chosen: Callable[[deployments.Record], bool], why: str) -> bool:
        """True if at least one was cancelled, or will be when what it changed is restored."""
        done = [self._cancel_one(one, why) for one in self._records if one.result is None and chosen(one)]
        return any(done)

    def _cancel_one(self, record: deployments.Record, why: str) -> bool:
        if record.id == self._current_id and self._current is not None:
            if not self._current.cancel(why):
                return False
        elif standing.is_committed(self._parts.configuration, record):  # begun before a restart of the nucleus
            if record.failure is not None:
                return False
            record.cancelled = why
        else:
            record.result = statuses.canceled(f"{why} before it began")
            self._finish(record)
            return True
        self._log.info("deployment.cancelling", deployment=record.id, why=why)
        self._reporter.save(record)
        return True
