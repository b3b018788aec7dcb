"""Does for one component what its configuration key `marram` asks for: readiness, health check, pauses between tries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from nucleus.actors import prober, starter
from nucleus.core import care, component, lifecycle
from nucleus.core.lifecycle import Event, Kind, State


class Carer:
    """`run` runs a probe's script as the component. Its answers become events of `who` in the supervisor's queue."""

    def __init__(
        self, who: object, name: str, tools: starter.Tools, run: prober.RunScript, is_paused: Callable[[], bool]
    ) -> None:
        self.wish = care.Care()
        self._who = who
        self._name = name
        self._tools = tools
        self._prober = prober.Prober(run, is_paused)
        self._watch: asyncio.Task[None] | None = None
        self._ready: asyncio.Task[None] | None = None
        self._waits = ""

    def take(self, record: component.Component) -> None:
        """The record's wishes count from now on; a watch that is running goes on with the old ones until `follow`."""
        before = self.wish
        try:
            self.wish = care.read(record.marram)
        except care.NotValid as error:  # deployments are refused before they get here; the store may be damaged
            self.wish = care.Care()
            self._tools.log.error("component.marram_ignored", component=self._name, why=str(error))
        if self.wish.health_check != before.health_check:
            self._stop_watch()

    def follow(self, state: State) -> None:
        """Watches the component's health while it is RUNNING."""
        if state is not State.RUNNING:
            self._stop_watch()
            return
        self.stop_readiness()
        probe = self.wish.health_check
        if probe is not None and self._watch is None:
            self._watch = self._tools.group.create_task(self._until_unhealthy(probe), name=f"{self._name} health")

    def beat(self, state: State) -> bool:
        """A report RUNNING; True if it is a heartbeat and says nothing else."""
        probe = self.wish.health_check
        if state is not State.RUNNING or probe is None or probe.kind != care.HEARTBEAT:
            return False
        self._prober.beat()
        return True

    async def spawned(self) -> None:
        """Run was started: RUNNING at once, or when its readiness check says so."""
        probe = self.wish.readiness
        if probe is None:
            await self._tools.post(self._who, Event(Kind.RUN_SPAWNED))
            return
        self._ready = self._tools.group.create_task(self._until_ready(probe), name=f"{self._name} readiness")

    async def started_up(self, state: State) -> None:
        """Startup has succeeded. Raises starter.Failure if the component does not become ready."""
        probe = self.wish.readiness
        if probe is None or state is not State.STARTING:
            return
        self._say(f"readiness check {probe}")
        why = await self._prober.until_ready(probe)
        self._say("")
        if why:
            raise starter.Failure("TIMEOUT", why)

    def stop_readiness(self) -> bool:
        """Whether it was still waited for."""
        waited, self._ready = self._ready, None
        if waited is None:
            return False
        waited.cancel()
        self._say("")
        return True

    async def back_off(self, life: lifecycle.Life) -> None:
        """Waits before the next try, the longer the more tries have failed."""
        pause_s = care.pause_s(self.wish.restart, life.errors, time.monotonic())
        if pause_s:
            self._say(f"a pause of {pause_s:g} s after an error (restartPolicy), until {_clock(pause_s)}")
            await asyncio.sleep(pause_s)
            self._say("")

    def waiting_for(self) -> str:
        return self._waits

    def cancel(self) -> None:
        self._stop_watch()
        self.stop_readiness()
        self._waits = ""

    async def _until_ready(self, probe: care.Probe) -> None:
        self._say(f"readiness check {probe}")
        why = await self._prober.until_ready(probe)
        self._ready = None
        self._say("")
        event = Event(Kind.RUN_FAILED, "RUN_TIMEOUT", why) if why else Event(Kind.RUN_SPAWNED)
        await self._tools.post(self._who, event)

    async def _until_unhealthy(self, probe: care.Probe) -> None:
        why = await self._prober.until_unhealthy(probe)
        self._watch = None
        self._tools.log.warning("component.unhealthy", component=self._name, why=why)
        await self._tools.post(self._who, Event(Kind.REPORTED_ERRORED, "RUN_ERROR", why))

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _say(self, text: str) -> None:
        self._waits = text
        self._tools.noticed()


def _clock(after_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(time.time() + after_s))
