"""Keeps the processes of one component within their limits, and pauses them (spec/nucleus.md 2.11).

Only what Startup and Run start is limited. A component without limits has no control group until it is paused.
"""

from __future__ import annotations

import asyncio

from nucleus.core import run_as
from nucleus.host import confine, logs, process

AGAIN_S = 1.0  # after adding a process its children are looked for once more, as the original does
FREEZE_S = 5.0  # a process in the kernel may take its time
RESUME_TRIES = 3
_LOOK_S = 0.01


class Confiner:
    def __init__(
        self,
        name: str,
        process_name: str,
        groups: confine.Groups,
        processes: process.Processes,
        group: asyncio.TaskGroup,
        log: logs.Log,
    ) -> None:
        self.paused = False
        self._name = name
        self._process_name = process_name
        self._groups = groups
        self._processes = processes
        self._group = group
        self._log = log
        self._told = ""
        self._late: asyncio.Task[None] | None = None

    def limit(self, limits: run_as.Limits) -> None:
        """Applies at once, also to what runs already. Where that is impossible the log says so, and it runs unlimited."""
        try:
            self._groups.limit(self._name, limits)
            self._told = ""
        except confine.Unavailable as error:
            if str(error) != self._told:
                self._log.warning("component.not_limited", component=self._name, why=str(error))
            self._told = str(error)

    def enter(self, pid: int) -> None:
        """Puts a new process into the component's groups if it has any; its children follow."""
        if not self._groups.has(self._name):
            return
        self._add([pid])
        self._stop_late()
        self._late = self._group.create_task(self._follow(), name=f"{self._name} control group")

    async def take_in(self) -> None:
        """Puts everything that runs now into the component's groups."""
        found = await asyncio.to_thread(self._processes.members, self._process_name)
        self._add([member.pid for member in found])

    async def pause(self) -> None:
        """Returns when everything stands still. Raises confine.Unavailable; then nothing does."""
        self.paused = True
        try:
            self._groups.freeze(self._name)
            async with asyncio.timeout(FREEZE_S):
                await self.take_in()  # what enters a frozen group is frozen
                while not self._groups.is_frozen(self._name):  # noqa: ASYNC110  the kernel tells nobody
                    await asyncio.sleep(_LOOK_S)
                await self.take_in()  # what was born meanwhile
        except TimeoutError:
            self.let_go()
            raise confine.Unavailable(f"its processes did not freeze within {FREEZE_S:g} s") from None
        except confine.Unavailable:
            self.let_go()
            raise

    def resume(self) -> None:
        """Raises confine.Unavailable after RESUME_TRIES."""
        for left in reversed(range(RESUME_TRIES)):
            try:
                self._groups.thaw(self._name)
                self.paused = False
                return
            except confine.Unavailable:
                if not left:
                    raise

    def let_go(self) -> None:
        """Before it is ended: what is frozen hears no signal."""
        self._stop_late()
        if self.paused:
            self.paused = False
            try:
                self._groups.thaw(self._name)
            except confine.Unavailable as error:
                self._log.error("component.not_resumed", component=self._name, why=str(error))

    def close(self) -> None:
        """When nothing of the component runs any more."""
        self.let_go()
        self._groups.remove(self._name)

    async def _follow(self) -> None:
        await self.take_in()
        await asyncio.sleep(AGAIN_S)
        await self.take_in()

    def _add(self, pids: list[int]) -> None:
        try:
            self._groups.add(self._name, pids)
        except confine.Unavailable as error:
            self._log.warning("component.not_limited", component=self._name, why=str(error))

    def _stop_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
