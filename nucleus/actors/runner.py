"""Performs the commands of one component's life: runs its scripts with their deadlines, ends its processes.

The supervisor owns the runner and is the only one that changes `life`; scripts run as tasks of the supervisor's group and
tell their end as an event.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any, assert_never

from msgspec import Struct

from nucleus.actors import carer, confiner, probe_script, running, starter
from nucleus.core import component, lifecycle, run_as, scripts
from nucleus.core.lifecycle import Event, Kind, Phase, State
from nucleus.host import confine, logs, process


class _Means(Struct, frozen=True):
    """What a runner runs scripts with, all there or nothing."""

    tools: starter.Tools
    starter: starter.Starter
    confiner: confiner.Confiner
    carer: carer.Carer
    output: logs.Output


class Runner:
    """One component. `record` is the newest one; scripts use the one that `TakeRecord` took last.

    Its processes are known as `process_name`. While an update runs beside the old version there are two (actors/overlaps.py):
    the `lodger` uses the log and the control group of the other one.
    """

    def __init__(self, record: component.Component, token: str, process_name: str = "") -> None:
        self.record = record
        self.token = token
        self.process_name = process_name or record.name
        self.lodger = False
        self.life = lifecycle.Life()
        self.since_at = time.time()
        self.removing = False
        self.told_to_end = False
        self.used = record
        self._means: _Means | None = None
        self._tasks: dict[Phase, asyncio.Task[None]] = {}
        self._running: dict[Phase, running.Script] = {}
        self.spawned = False

    def open(self, tools: starter.Tools, host: Runner | None = None) -> None:
        """Gives it the means to run scripts; until then commands must not be performed. A lodger writes the log of its `host`."""
        name, log = self.record.name, tools.places.logs / f"{self.record.name}.log"
        self._means = _Means(
            tools,
            starter.Starter(tools, self.token, self.process_name),
            confiner.Confiner(name, self.process_name, tools.groups, tools.processes, tools.group, tools.log),
            carer.Carer(self, name, tools, self._probe, self.is_paused),
            host._with.output if host is not None else logs.output(log, name, tools.log.style),
        )
        self._means.carer.take(self.record)

    @property
    def _with(self) -> _Means:
        if self._means is None:
            raise RuntimeError(f"cannot run scripts of {self.record.name}: its runner was not opened")
        return self._means

    def lodge(self, process_name: str) -> Runner:
        """A lodger for the newest record, identified as this one is."""
        made = Runner(self.record, self.token, process_name)
        made.lodger = True
        made.open(self._with.tools, self)
        return made

    def close(self) -> None:
        self.cancel()
        if self.lodger:
            return
        if self._means is not None:
            self._means.confiner.close()
            self._means.output.close()

    def cancel(self) -> None:
        """Forgets every script; what they started runs on until it is ended."""
        if self._means is not None:
            self._means.carer.cancel()
            self._means.confiner.let_go()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._running.clear()

    def perform(self, commands: Iterable[lifecycle.Command]) -> None:
        for command in commands:
            match command:
                case lifecycle.RunScript(phase):
                    if phase in (Phase.SHUTDOWN, Phase.RECOVER) and self._means is not None:
                        self._means.confiner.let_go()
                    self._begin(phase, self._script(phase))
                case lifecycle.KillProcesses():
                    self.cancel()
                    self._begin(Phase.KILL, self._kill())
                case lifecycle.TakeRecord():
                    self._take_record()
                case lifecycle.DropStartupDeadline():
                    if Phase.STARTUP in self._running:
                        self._running[Phase.STARTUP].drop_deadline()
                case _:
                    assert_never(command)
        if self._means is not None:
            self._means.carer.follow(self.life.state)

    def life_by_policy(self) -> lifecycle.Life:
        """The life with the newest record's rules for errors."""
        self._with.carer.take(self.record)
        policy = self._with.carer.wish.restart
        reset_s = policy.reset_s if policy.reset_s is not None else scripts.error_reset_s(self.record)
        return lifecycle.with_error_rules(self.life, reset_s, policy.max_failures)

    def beat(self) -> bool:
        """The component reported RUNNING; True if that was only its heartbeat."""
        return self._means is not None and self._means.carer.beat(self.life.state)

    def is_paused(self) -> bool:
        return self._means is not None and self._means.confiner.paused

    def limit(self) -> None:
        """Applies the newest record's limits, also to what runs."""
        if self._means is not None:
            self._means.confiner.limit(run_as.limits(self.record.run_with, self._means.tools.defaults()))

    async def pause(self) -> None:
        """Raises confine.Unavailable, also when it is not RUNNING."""
        if self.life.state is not State.RUNNING or self._means is None:
            raise confine.Unavailable(f"it is {self.life.state.name}, and only a RUNNING component can be paused")
        await self._means.confiner.pause()

    def resume(self) -> None:
        """Raises confine.Unavailable."""
        if self._means is not None:
            self._means.confiner.resume()

    def health(self, waiting_for: str) -> lifecycle.Health:
        life, name = self.life, self.record.name
        return lifecycle.Health(
            name=name,
            version=self.record.version,
            state=life.state,
            settled=lifecycle.settled(life),
            status_code=life.code,
            reason=life.reason,
            since_at=self.since_at,
            generation=life.generation,
            failures=life.failures,
            pids=self._means.tools.processes.pids(self.process_name) if self._means is not None else (),
            waiting_for=waiting_for,
        )

    def waiting_for(self) -> str:
        """What the running script is, and how long it has been running, in words; "" if none runs."""
        phase = self.life.doing
        if phase is None:
            return ""
        if phase is Phase.KILL:
            return "the end of its processes"
        if self._means is not None and (told := self._means.carer.waiting_for()):
            return told
        script = self._running.get(phase)
        return script.progress() if script is not None else f"{phase.value.capitalize()} script"

    # ---- to and from another process image (actors/handover.py) ------------------------------------------------------

    def under_way(self) -> dict[Phase, running.Script | None]:
        """The phases that are being carried out; None: nothing was started for it yet."""
        return {phase: self._running.get(phase) for phase, task in self._tasks.items() if not task.done()}

    def carry_on(self, phase: Phase, script: running.Script | None) -> None:
        """Carries a phase on, from its beginning if nothing was started for it."""
        self._begin(phase, self._kill() if phase is Phase.KILL else self._script(phase, script))

    def settle(self, *, paused: bool) -> None:
        """After the last `carry_on`."""
        self._with.confiner.paused = paused
        self._with.carer.follow(self.life.state)

    def _begin(self, phase: Phase, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[phase] = self._with.tools.group.create_task(work, name=f"{self.record.name} {phase.value}")

    async def _kill(self) -> None:
        if self.spawned:
            left = await self._with.tools.processes.end(self.process_name)
            if left:
                self._with.tools.log.error("component.processes_left", component=self.record.name, processes=left)
            self.spawned = left > 0
        await self._with.tools.post(self, Event(Kind.KILLED))

    async def _script(self, phase: Phase, resumed: running.Script | None = None) -> None:
        """Runs a phase's script to its end, or one that was handed over, and tells how it ended."""
        done, nothing, failed = lifecycle.OUTCOMES[phase]
        if phase in (Phase.INSTALL, Phase.STARTUP) and resumed is None:
            await self._with.carer.back_off(self.life)
            if self.life.doing is not phase:
                return  # something else was asked for meanwhile
        if phase is Phase.INSTALL and resumed is None:
            await asyncio.to_thread(self._with.tools.before_install, self.used)
        try:
            script = scripts.read(self.used, phase)
            if resumed is not None:
                await self._to_its_end(resumed)
                event = Event(done)
            elif script is None or self._with.starter.skips(self.used, script):
                event = Event(nothing)
            else:
                await self._to_its_end(await self._begun(phase, script))
                event = Event(done)
        except scripts.NotValid as error:
            event = Event(failed, scripts.status_code(phase, "CONFIG_NOT_VALID"), str(error))
        except starter.Failure as failure:
            event = Event(failed, scripts.status_code(phase, failure.what), failure.reason)
        self._running.pop(phase, None)
        if event.reason:
            self._with.tools.log.warning(
                "component.script_failed", component=self.used.name, version=self.used.version, why=event.reason
            )
        await self._with.tools.post(self, event)

    async def _begun(self, phase: Phase, script: scripts.Script) -> running.Script:
        last: dict[str, str] = {}
        child = await self._start(phase, script, last)
        self._with.tools.log.info(
            "component.script_started", component=self.used.name, script=phase.value, pid=child.pid
        )
        return running.Script(phase, child, last, script.timeout_s)

    async def _to_its_end(self, one: running.Script) -> None:
        """Returns after exit code 0. Raises starter.Failure otherwise."""
        phase, child = one.phase, one.child
        self._running[phase] = one
        if phase is Phase.RUN and self.life.doing is phase:
            await self._with.carer.spawned()
        try:
            self._with.tools.noticed()
            code = await one.wait()
        except TimeoutError:
            if phase not in (Phase.SHUTDOWN, Phase.UNINSTALL):  # there everything is ended next
                await self._with.tools.processes.end_one(child)
            why = f"{phase.value.capitalize()} script did not end within {one.timeout_s:g} s{running.told(one.last)}"
            raise starter.Failure("TIMEOUT", why) from None
        finally:
            early = phase is Phase.RUN and self._with.carer.stop_readiness()
        self._with.tools.log.info(
            "component.script_ended", component=self.used.name, script=phase.value, pid=child.pid, code=code
        )
        if code != 0:
            raise starter.Failure(
                "ERROR", f"{phase.value.capitalize()} script {running.ended(code)}{running.told(one.last)}"
            )
        if early:
            await self._with.tools.post(self, Event(Kind.RUN_SPAWNED))
        if phase is Phase.STARTUP:
            await self._with.carer.started_up(self.life.state)

    async def _start(self, phase: Phase, script: scripts.Script, last: dict[str, str]) -> process.Process:
        self.spawned = True
        child = await self._with.starter.start(self.used, phase, script, self.sink(phase, last))
        if phase in (Phase.STARTUP, Phase.RUN):
            self._with.confiner.enter(child.pid)
        return child

    def sink(self, phase: Phase, last: dict[str, str]) -> process.Sink:
        """Takes what a script writes to the component's log; `last` gets the last line of each stream."""

        def take(stream: str, lines: list[str]) -> None:
            last[stream] = next((line for line in reversed(lines) if line.strip()), last.get(stream, ""))
            if self._means is not None:
                self._means.output.write(stream, lines, phase=phase.value, state=self.life.state.name)

        return take

    async def _probe(self, text: str, timeout_s: float) -> str:
        """Runs a script of the health check like one of the component's own; "" if it ended well, else why not."""
        return await probe_script.run(self._start, self._with.tools.processes, self.used, text, timeout_s)

    def _take_record(self) -> None:
        self.used = self.record
        if self._means is not None:
            self._means.carer.take(self.used)
            self._means.starter.begin()
