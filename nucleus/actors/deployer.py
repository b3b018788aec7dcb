"""The queue of deployments: accepts, orders, carries out one at a time, and reports results until they are accepted.

A deployment is durable before anything is done for it. Order: by the time it was queued; a new shadow deployment takes the
place of a queued one. A report that the cloud has not confirmed is repeated after every connection.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from nucleus.actors import deployment, standing
from nucleus.core import desired, document, errors, local
from nucleus.core import status as statuses
from nucleus.host import logs
from nucleus.store import deployments

REPORT_AGAIN_S = 30.0
MAX_QUEUED = 100  # deployments waiting; more are refused (the cloud keeps them and tells again)


class Source(Protocol):
    """Where a deployment came from and where its reports go. True: confirmed, or never to be taken."""

    async def report(self, record: deployments.Record, state: str, details: dict[str, str], /) -> bool: ...


class Deployer:
    """Owns the records of all deployments. `sources` maps deployments.JOB, SHADOW to their reporters."""

    def __init__(
        self,
        parts: deployment.Parts,
        *,
        sources: Mapping[str, Source],
        on_end: Callable[[deployments.Record], None],
        log: logs.Log,
    ) -> None:
        self._parts = parts
        self._sources = dict(sources)
        self._on_end = on_end
        self._log = log
        self._records: list[deployments.Record] = []
        self._current: deployment.Deployment | None = None
        self._current_id = ""
        self._said: dict[str, str] = {}
        self._sent: dict[str, str] = {}
        self._work = asyncio.Event()
        self._news = asyncio.Event()

    def add_source(self, name: str, source: Source) -> None:
        self._sources[name] = source

    def restore(self) -> None:
        """Reads the records at launch, before any process starts; deployments that loop are planned back here."""
        self._records, bad = self._parts.store.load()
        for sentence in bad:
            self._log.error("deployment.record_lost", why=sentence)
        standing.give_up_on_loops(self._parts.store, self._parts.configuration, self._records, self._log)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_for_ever())
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
        if known is not None:
            if known.result is not None:
                known.reported = False
                self._news.set()
            return
        if len([one for one in self._records if one.result is None]) >= MAX_QUEUED:
            self._log.error("deployment.queue_full", deployment=record.id)
            return
        if record.source == deployments.SHADOW:
            self._cancel_queued(deployments.SHADOW)
        self._log.info("deployment.queued", deployment=record.id, source=record.source)
        stale = self._stale(record)
        if stale is not None:
            record.result = stale
        self._accept(record)

    def refuse(self, record: deployments.Record, error: errors.NucleusError) -> None:
        """Takes a document that cannot be read, only to report why."""
        if self._find(record.id) is None:
            record.result = statuses.rejected(error.code, error.detail)
            self._accept(record)

    def cancel(self, source: str, carrier: str) -> None:
        """Cancels what is queued from a source (`carrier` empty: everything), and the running one before its commit."""
        self._cancel_queued(source, carrier)
        current = self._find(self._current_id)
        if self._current is not None and current is not None and current.source == source == deployments.SHADOW:
            self._current.cancelled.set()

    async def create_local(self, request: local.LocalRequest, caller: str) -> str:
        """Accepts a local deployment (spec/nucleus.md 5.2); returns its id. Raises NucleusError."""
        recipes = Path(request.recipe_directory) if request.recipe_directory else None
        artifacts = Path(request.artifacts_directory) if request.artifacts_directory else None
        taken = await asyncio.to_thread(self._parts.components.take_local, recipes, artifacts)
        self._log.info("deployment.local_files", components=[" ".join(one) for one in taken], caller=caller)
        store = self._parts.configuration
        group = f"thinggroup/{request.group}" if request.group else document.LOCAL_GROUP
        wanted = document.local(
            deployment_id=str(uuid.uuid4()),
            group=group,
            created_ms=store.now(),
            running_roots=desired.roots(store.tree).get(group, {}),
            add=request.add,
            remove=request.remove,
            updates=request.updates,
            run_with=request.run_with,
            failure_policy=request.failure_policy,
        )
        record = deployments.Record(
            document=wanted, source=deployments.LOCAL, queued_ms=wanted.created_ms, caller=caller, taken=taken
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
        self._news.set()

    # ---- the work ------------------------------------------------------------------------------------------------

    async def _carry_out(self, record: deployments.Record) -> None:
        self._log.info("deployment.started", deployment=record.id, group=record.document.group)
        self._current = deployment.Deployment(self._parts, record, lambda text: self._say(record, text))
        self._current_id = record.id
        self._say(record, "starting")
        try:
            record.result = await self._current.execute()
        except deployment.Cancelled:
            record.result = statuses.Result(status=statuses.CANCELED, detailed=statuses.CANCELED)
        finally:
            self._current, self._current_id = None, ""
        self._finish(record)
        self._clean()

    def _accept(self, record: deployments.Record) -> None:
        self._parts.store.save(record)
        self._records.append(record)
        if record.result is not None:
            self._finish(record)
        self._work.set()
        self._news.set()

    def _finish(self, record: deployments.Record) -> None:
        assert record.result is not None
        record.undo = ()  # nothing leads back any more
        self._parts.store.save(record)
        self._said.pop(record.id, None)
        self._log.info(
            "deployment.ended",
            deployment=record.id,
            status=record.result.status,
            detailed=record.result.detailed,
            cause=record.result.cause,
        )
        self._on_end(record)
        self._news.set()

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

    def _say(self, record: deployments.Record, text: str) -> None:
        if self._said.get(record.id) != text:
            self._said[record.id] = text
            self._log.debug("deployment.waiting", deployment=record.id, reason=text)
            self._news.set()

    # ---- reports -------------------------------------------------------------------------------------------------

    async def _report_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REPORT_AGAIN_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            for record in [one for one in self._records if not one.reported]:
                await self._report(record)

    async def _report(self, record: deployments.Record) -> None:
        source = self._sources.get(record.source)
        if source is None:  # local: whoever asked polls its status
            if record.result is not None:
                self._reported(record)
            return
        said = self._said.get(record.id)
        if record.id not in self._sent or (
            record.result is None and said is not None and self._sent[record.id] != said
        ):
            if record.result is None and said is None:
                return  # still queued
            self._sent[record.id] = said or ""
            details = {"marram-waiting-for": (said or "")[: statuses.MAX_DETAIL]} if said else {}
            if not await source.report(record, "IN_PROGRESS", details):
                self._sent.pop(record.id, None)
                return
        if record.result is not None and await source.report(
            record, record.result.status, statuses.job_details(record.result)
        ):
            self._reported(record)

    def _reported(self, record: deployments.Record) -> None:
        record.reported = True
        self._sent.pop(record.id, None)
        self._parts.store.save(record)

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

    def _cancel_queued(self, source: str, carrier: str = "") -> None:
        for record in self._records:
            queued = record.result is None and record.id != self._current_id and record.source == source
            if queued and carrier in ("", record.carrier):
                record.result = statuses.Result(status=statuses.CANCELED, detailed=statuses.CANCELED)
                record.reported = source == deployments.JOB  # the service cancelled it: it knows
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
