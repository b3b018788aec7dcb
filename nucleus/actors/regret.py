"""The time after success in which a deployment may be regretted: a BROKEN component that it changed leads back.

The way back is a deployment of its own, local, reported like any other. It is offered only while the changes of the
regretted deployment are the last ones in force, and not while another deployment is at work.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence

import msgspec

from nucleus.actors import standing, supervisor
from nucleus.core import bootstrap
from nucleus.core.lifecycle import State
from nucleus.host import logs
from nucleus.store import deployments

Take = Callable[[deployments.Record], object]


class Regret:
    """`records` is the deployer's own list, `submit` accepts the way back, `save` keeps a record."""

    def __init__(
        self,
        records: Sequence[deployments.Record],
        store: standing.Store,
        running: supervisor.Supervisor,
        *,
        submit: Take,
        save: Take,
        log: logs.Log,
    ) -> None:
        self._records = records
        self._store = store
        self._running = running
        self._submit = submit
        self._save = save
        self._log = log
        self._until: dict[str, float] = {}  # deployment -> monotonic end of its time, from when this process saw it

    def candidate(self) -> deployments.Record | None:
        """The deployment that could be regretted now."""
        found = next((one for one in self._records if one.undo and standing.is_settled(self._store, one)), None)
        if found is not None:
            self._left_s(found)  # its time runs from here on
        return found

    async def until(self, work: asyncio.Event) -> None:
        """Watches while there is nothing to do; returns when there is, be it the way back itself."""
        found = self.candidate()
        for old in self._records:
            if old.undo and old.result is not None and old is not found:
                self._close(old)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(found)) if found is not None else None
            await work.wait()  # no deadline: there may be nothing to do for months
            if watch is not None:
                watch.cancel()

    async def _watch(self, record: deployments.Record) -> None:
        left_s = self._left_s(record)
        try:
            async with asyncio.timeout(left_s):
                while not (broken := self._broken(record)):
                    await self._running.changed(self._running.revision)
        except TimeoutError:
            self._close(record)
            return
        name, why = broken
        after_s = round(record.document.regret_s - self._left_s(record))
        cause = f"{name} became BROKEN {after_s} s after deployment {record.id} had succeeded: {why}"
        self._log.error("deployment.regretted", deployment=record.id, component=name, why=cause)
        self._submit(_back(record, cause, self._store.now()))

    def _broken(self, record: deployments.Record) -> tuple[str, str] | None:
        for name in record.changed:
            one = self._running.health().get(name)
            if one is not None and one.state is State.BROKEN:
                return name, f"{one.status_code} {one.reason}".strip()
        return None

    def _left_s(self, record: deployments.Record) -> float:
        """Seconds that are left to regret it. The wall clock is asked once, after a launch; what it does then is no matter."""
        now = time.monotonic()
        if record.id not in self._until:
            by_wall_clock_s = record.regret_until_ms / 1000 - self._store.wall_s()
            self._until[record.id] = now + min(by_wall_clock_s, record.document.regret_s)  # it may have gone back
        return max(self._until[record.id] - now, 0.0)

    def _close(self, record: deployments.Record) -> None:
        record.undo, record.regret_until_ms = (), 0
        self._until.pop(record.id, None)
        self._save(record)


def _back(record: deployments.Record, cause: str, now_ms: int) -> deployments.Record:
    """The deployment that leads back; it begins as one that has failed after its commit."""
    wanted = msgspec.structs.replace(record.document, deployment_id=str(uuid.uuid4()), regret_s=0.0)
    return deployments.Record(
        document=wanted,
        source=deployments.LOCAL,
        queued_ms=now_ms,
        caller="nucleus",
        resolved=record.resolved,
        previous=record.previous,
        broken=record.broken,
        undo=record.undo,
        failure=deployments.Failure(("COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN"), cause),
        bootstrap=bootstrap.Facts(own=record.bootstrap.own),  # the nucleus goes back with the rest
        regrets=record.id,
    )
