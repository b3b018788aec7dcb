"""Reports how deployments stand to where they came from, until that is confirmed; never while there is no connection.

Nothing here ends the daemon: a report that cannot be sent or noted is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from nucleus.core import errors, local
from nucleus.core import status as statuses
from nucleus.host import logs
from nucleus.store import deployments

REPORT_AGAIN_S = 30.0


class Source(Protocol):
    """Where a deployment came from and where its reports go. True: confirmed, or never to be taken."""

    async def report(self, record: deployments.Record, state: str, details: dict[str, str], /) -> bool: ...


class Reporter:
    """`records` is the deployer's own list; `store` makes durable what was confirmed."""

    def __init__(
        self,
        records: list[deployments.Record],
        store: deployments.DeploymentStore,
        sources: Mapping[str, Source],
        log: logs.Log,
    ) -> None:
        self._records = records
        self._store = store
        self._sources = dict(sources)
        self._log = log
        self._said: dict[str, str] = {}
        self._sent: dict[str, str] = {}
        self._unsaved: set[str] = set()
        self._news = asyncio.Event()

    def add_source(self, name: str, source: Source) -> None:
        self._sources[name] = source

    def wake(self) -> None:
        self._news.set()

    def say(self, record: deployments.Record, text: str) -> None:
        """What a running deployment waits for."""
        if self._said.get(record.id) != text:
            self._said[record.id] = text
            self._log.debug("deployment.waiting", deployment=record.id, reason=text)
            self._news.set()

    def ended(self, record: deployments.Record) -> None:
        self._said.pop(record.id, None)
        self._news.set()

    def again(self, record: deployments.Record) -> None:
        """The cloud asks about a deployment that has ended: it did not hear of it."""
        record.reported = False
        self._news.set()

    def save(self, record: deployments.Record) -> bool:
        """Makes a record durable now, or later when the disk does not take it: the deployment itself goes on."""
        try:
            self._store.save(record)
        except errors.NucleusError as error:
            self._log.error("deployment.cannot_write", deployment=record.id, code=error.code, why=error.detail)
            self._unsaved.add(record.id)
            return False
        self._unsaved.discard(record.id)
        return True

    async def run(self) -> None:
        """Reports until cancelled."""
        while True:
            try:
                async with asyncio.timeout(REPORT_AGAIN_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            for record in [one for one in self._records if one.id in self._unsaved]:
                self.save(record)
            for record in [one for one in self._records if not one.reported]:
                await self._report(record)

    async def _report(self, record: deployments.Record) -> None:
        source = self._sources.get(record.source)
        if source is None:  # local: whoever asked polls its status
            if record.result is not None:
                self._confirmed(record)
            return
        said = self._said.get(record.id)
        if record.result is None and said is None:
            return  # still queued
        begun = record.result is None or record.result.status not in (statuses.CANCELED, statuses.REJECTED)
        if begun and (record.id not in self._sent or (record.result is None and self._sent[record.id] != said)):
            self._sent[record.id] = said or ""
            details = {"marram-waiting-for": (said or "")[: statuses.MAX_DETAIL]} if said else {}
            if not await self._send(source, record, "IN_PROGRESS", details):
                self._sent.pop(record.id, None)
                return
        result = record.result
        if result is not None and await self._send(source, record, result.status, statuses.job_details(result)):
            self._confirmed(record)

    async def _send(self, source: Source, record: deployments.Record, state: str, details: dict[str, str]) -> bool:
        try:
            return await source.report(record, state, details)
        except errors.NucleusError as error:  # the spool is full
            self._log.warning("deployment.not_reported", deployment=record.id, status=state, why=error.detail)
            return False

    def _confirmed(self, record: deployments.Record) -> None:
        record.reported = True
        self._sent.pop(record.id, None)
        self.save(record)


def local_status(record: deployments.Record, *, running: bool) -> local.LocalStatus:
    """How a local deployment stands, for whoever asks."""
    result = record.result
    return local.LocalStatus(
        deployment_id=record.id,
        status=result.status if result is not None else "IN_PROGRESS" if running else "QUEUED",
        created_at=record.document.created_ms / 1000,
        detail=result.detailed if result is not None else "",
        error_stack=result.stack if result is not None else (),
        error_types=result.types() if result is not None else (),
        failure_cause=result.cause if result is not None else "",
    )
