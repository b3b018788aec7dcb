"""The queue of deployments: accepts, orders, carries out one at a time.

A deployment is durable before anything is done for it. Order: by the time it was queued; a new shadow deployment takes the
place of a queued one, and of a running one that has not changed anything yet. No deployment ends the daemon: what goes wrong
is its result.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from nucleus.actors import deployment, reporter, standing
from nucleus.core import desired, document, errors, local, progress
from nucleus.core import status as statuses
from nucleus.host import logs
from nucleus.store import deployments

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
        self._current: deployment.Deployment | None = None
        self._current_id = ""
        self._work = asyncio.Event()
        self._files = asyncio.Lock()  # the recipes of a local deployment are not cleaned away before it is accepted

    def add_source(self, name: str, source: reporter.Source) -> None:
        self._reporter.add_source(name, source)

    def restore(self) -> None:
        """Reads the records at launch, before any process starts; deployments that loop are planned back here."""
        found, bad = self._parts.store.load()
        self._records.extend(found)
        for sentence in bad:
            self._log.error("deployment.record_lost", why=sentence)
        try:
            standing.give_up_on_loops(self._parts.store, self._parts.configuration, self._records, self._log)
        except errors.NucleusError as error:  # a full disk must not keep the components from starting
            self._log.error("deployment.cannot_write", code=error.code, why=error.detail)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reporter.run())
            while True:
                waiting = [one for one in self._records if one.result is None]
                if waiting:
                    await self._carry_out(waiting[0])
                    continue
                self._work.clear()
                await self._work.wait()  # no deadline: there may be nothing to do for months

    # ---- what sources and the IPC ask ----------------------------------------------------------------------------

    def submit(self, record: deployments.Record) -> None:
        """Accepts a deployment durably; a duplicate delivery only makes its result be reported again."""
        known = self._find(record.id)
        if known is not None and not _again(known, record):
            if known.result is not None:
                self._reporter.again(known)
            return
        if self._is_full():
            self._log.error("deployment.queue_full", deployment=record.id)
            return
        if known is not None:
            self._records.remove(known)
        if record.source == deployments.SHADOW:
            self.cancel(deployments.SHADOW, "")
        self._log.info("deployment.queued", deployment=record.id, source=record.source)
        record.result = self._stale(record)
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
        """Cancels what is queued from a source (`carrier` empty: everything), and the running one before its commit."""
        self._cancel(lambda one: one.source == source and carrier in ("", one.carrier))

    def keep_jobs(self, listed: frozenset[str]) -> None:
        """Cancels every job that the service does not list as pending any more."""
        self._cancel(lambda one: one.source == deployments.JOB and one.carrier not in listed)

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
        return self._local_status(record) if record is not None and record.source == deployments.LOCAL else None

    def list(self) -> list[local.LocalStatus]:
        return [self._local_status(one) for one in self._records if one.source == deployments.LOCAL]

    def wake_reports(self) -> None:
        """Called after every connection: what was not confirmed is sent again."""
        self._reporter.wake()

    # ---- the work ------------------------------------------------------------------------------------------------

    async def _carry_out(self, record: deployments.Record) -> None:
        self._log.info("deployment.started", deployment=record.id, group=record.document.group)
        self._current = deployment.Deployment(self._parts, record, lambda text: self._reporter.say(record, text))
        self._current_id = record.id
        self._reporter.say(record, "starting")
        try:
            record.result = self._refresh(record) or await self._execute(self._current)
        finally:
            self._current, self._current_id = None, ""
        self._finish(record)
        async with self._files:
            self._clean()

    async def _execute(self, one: deployment.Deployment) -> statuses.Result:
        try:
            return await one.execute()
        except deployment.Cancelled:
            return statuses.Result(status=statuses.CANCELED, detailed=statuses.CANCELED)
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
        return self._stale(record)

    def _accept(self, record: deployments.Record) -> None:
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

    def _finish(self, record: deployments.Record) -> None:
        assert record.result is not None
        record.undo = ()  # nothing leads back any more
        self._reporter.save(record)
        self._log.info(
            "deployment.ended",
            deployment=record.id,
            status=record.result.status,
            detailed=record.result.detailed,
            cause=record.result.cause,
        )
        self._on_end(record)
        self._reporter.ended(record)

    def _clean(self) -> None:
        """Keeps the versions that are installed, those one step back, and those of the newest failed deployment."""
        keep: dict[str, set[str]] = {}
        for name, one in desired.installed(self._parts.configuration.tree).items():
            keep.setdefault(name, set()).add(one.version)
        ended = [one for one in self._records if one.result is not None]
        good = [one for one in ended if one.result and one.result.status == statuses.SUCCEEDED][-2:]
        queued = [one for one in self._records if one.result is None]
        wanted = [(name, wish.version) for one in queued for name, wish in one.document.components.items()]
        for record in good + ended[-1:] + queued:
            wanted += [*record.resolved.items(), *record.taken]
        for name, version in wanted:
            keep.setdefault(name, set()).add(version)
        removed = self._parts.components.clean({name: frozenset(versions) for name, versions in keep.items()})
        if removed:
            self._log.info("components.cleaned", removed=", ".join(removed))
        self._parts.store.prune(self._records)
        done = [one for one in self._records if one.result is not None and one.reported]
        for old in done[: -deployments.KEEP_FINISHED]:
            self._records.remove(old)

    # ---- small questions -----------------------------------------------------------------------------------------

    def _find(self, deployment_id: str) -> deployments.Record | None:
        return next((one for one in self._records if one.id == deployment_id), None)

    def _stale(self, record: deployments.Record) -> statuses.Result | None:
        """A revision older than the last processed one of its group is refused (spec/nucleus.md 5.6)."""
        newest = desired.last_created_ms(self._parts.configuration.tree, record.document.group)
        if record.source == deployments.LOCAL or record.document.created_ms >= newest:
            return None
        cause = f"{record.document.group} was created before a deployment of that group that is already processed"
        return statuses.rejected("REJECTED_STALE_DEPLOYMENT", cause)

    def _roots(self, group: str) -> dict[str, str]:
        return desired.roots(self._parts.configuration.tree).get(group, {})

    def _is_full(self) -> bool:
        return len([one for one in self._records if one.result is None]) >= MAX_QUEUED

    def _cancel(self, chosen: Callable[[deployments.Record], bool]) -> None:
        for record in [one for one in self._records if one.result is None and chosen(one)]:
            if record.id == self._current_id and self._current is not None:
                self._current.cancelled.set()
                continue
            record.result = statuses.Result(status=statuses.CANCELED, detailed=statuses.CANCELED)
            record.reported = record.source == deployments.JOB  # the service cancelled it: it knows
            self._finish(record)

    def _local_status(self, record: deployments.Record) -> local.LocalStatus:
        result = record.result
        running = "IN_PROGRESS" if record.id == self._current_id else "QUEUED"
        return local.LocalStatus(
            deployment_id=record.id,
            status=result.status if result is not None else running,
            created_at=record.document.created_ms / 1000,
            detail=result.detailed if result is not None else "",
            error_stack=result.stack if result is not None else (),
            error_types=result.types() if result is not None else (),
            failure_cause=result.cause if result is not None else "",
        )


def _again(known: deployments.Record, record: deployments.Record) -> bool:
    """Whether a job that has ended here shall run again: queued anew (back in its group), or not cancelled after all."""
    if known.result is None or record.source != deployments.JOB:
        return False
    return known.queued_ms != record.queued_ms or known.result.status == statuses.CANCELED
