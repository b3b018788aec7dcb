"""Lets local deployments go before a cloud deployment that waits for the network and has changed nothing.

Nucleus issue 807: one deployment that cannot go on must not keep somebody at the device from deploying. What was
overtaken begins again afterwards: answers and downloads are kept, its deadline runs on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from nucleus.core import status
from nucleus.host import logs
from nucleus.store import deployments


class Overtaking:
    """`records` is the deployer's own list; `is_unanswered` says whether a deployment waits for the network now."""

    def __init__(
        self, records: Sequence[deployments.Record], is_unanswered: Callable[[str], bool], log: logs.Log
    ) -> None:
        self._records = records
        self._is_unanswered = is_unanswered
        self._log = log
        self._aside = ""  # id of what was overtaken
        self._current: deployments.Record | None = None
        self._window: asyncio.Timeout | None = None

    def next(self) -> deployments.Record | None:
        """What is to be carried out now."""
        waiting = [one for one in self._records if one.result is None]
        if waiting and waiting[0].id == self._aside:
            return next((one for one in waiting if one.source == deployments.LOCAL), waiting[0])
        return waiting[0] if waiting else None

    async def carry(self, record: deployments.Record, work: Awaitable[status.Result]) -> status.Result | None:
        """The result, or None if it has given way."""
        self._current = record
        try:
            async with asyncio.timeout(None) as self._window:
                return await work
        except TimeoutError:
            self._aside = record.id
            self._log.info("deployment.overtaken", deployment=record.id, why="it waits for the network")
            return None
        finally:
            self._current, self._window = None, None

    def look(self) -> None:
        """To be called when a deployment was accepted, or the one at work says what it waits for."""
        record, window = self._current, self._window
        if record is None or window is None or record.source == deployments.LOCAL:
            return
        if record.previous is not None or not self._is_unanswered(record.id):
            return
        if any(one.source == deployments.LOCAL and one.result is None for one in self._records):
            self._window = None  # once is enough
            window.reschedule(asyncio.get_running_loop().time())
