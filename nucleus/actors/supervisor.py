"""The actor that owns all components: takes requests, reports and ends of scripts from one queue, steps each life.

Requests are methods that return at once; what they cause is seen in `health()` and told by `changed()`. Components start
when their hard dependencies are ready and are stopped before them (spec/nucleus.md 2.5).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from pathlib import Path

from nucleus.actors import handover, keeper, overlaps, readiness, runner, starter
from nucleus.core import errors, lifecycle, run_as, transitions
from nucleus.core import handover as carrying
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, Event, Health, Kind, State
from nucleus.host import confine, logs, places, process

QUEUE_SIZE = 10_000  # requests of the deployer and ends of scripts; both are bounded by the number of components
MAX_REPORTS = 1000  # UpdateState beyond that is dropped: a component that reports so often says nothing
STOP_S = 30.0  # for all Shutdown scripts together (spec/nucleus.md 2.7); after that KILL

# A component by its name, or the runner whose script it was; what; generation. None: it is to be removed ("" only wakes).
Item = tuple[str | runner.Runner, Event | Effect | None, int]


class Supervisor:
    """`environment` are the variables common to all components. `on_change` hears of every new state, in this task."""

    def __init__(
        self,
        places: places.Places,
        environment: Mapping[str, str],
        default_user: str,
        log: logs.Log,
        on_change: Callable[[Health], None],
        *,
        stop_s: float = STOP_S,
        cgroup_root: Path = confine.ROOT,
    ) -> None:
        self.revision = 0
        self.keeper = keeper.Keeper(places, log)
        self._groups = confine.Groups(confine.parent(process.owner(places.processes)), cgroup_root)
        self._stop_s = stop_s
        self._places = places
        self._environment = environment
        self._defaults = run_as.Defaults(posix_user=default_user)
        self._log = log
        self._on_change = on_change
        self._queue: asyncio.Queue[Item] = asyncio.Queue(QUEUE_SIZE)
        self._runners: dict[str, runner.Runner] = {}
        self._tokens: dict[str, str] = {}
        self._overlaps = overlaps.Overlaps(self._runners, self._step, self._refresh, on_change, log)
        self._tools: starter.Tools | None = None
        self._news = asyncio.Event()
        self._generation = 0
        self._stop_by: float | None = None
        self._carried = carrying.Components(generation=0, number=0)

    # ---- requests ------------------------------------------------------------------------------------------------

    def adopt(self, one: Component, effect: Effect) -> int:
        """Puts a new or changed component under supervision; returns its generation. Ignored after `stop`."""
        self._generation += 1
        if self._stop_by is not None:
            return self._generation
        known = self._runners.get(one.name)
        if known is None:
            known = self._runners[one.name] = self._new_runner(one)
        known.record = one
        known.removing = known.told_to_end = False
        self._put(one.name, effect, self._generation)
        return self._generation

    def remove(self, name: str) -> None:
        """Stops it after its hard dependents that leave too, runs Uninstall, forgets it. Unknown names are ignored."""
        if name in self._runners:
            self._runners[name].removing = True
            self._put(name, None)

    def restart(self, name: str) -> bool:
        """False if it is unknown, BROKEN, being removed, or has not been asked to start."""
        known = self._runners.get(name)
        if known is None or known.removing or self._stop_by is not None or not lifecycle.can_restart(known.life):
            return False
        self._put(name, Event(Kind.RESTART))
        return True

    def stop_component(self, name: str) -> bool:
        known = self._runners.get(name)
        if known is None or self._stop_by is not None or known.life.state is State.BROKEN:
            return False
        self._put(name, Event(Kind.STOP))
        return True

    def report(self, name: str, state: str) -> None:
        """A component's UpdateState: RUNNING, ERRORED or FINISHED. What means nothing now is ignored with a warning."""
        if name not in self._runners or state not in lifecycle.REPORTS or self._queue.qsize() >= MAX_REPORTS:
            self._log.warning("component.report_dropped", component=name, state=state)
            return
        if state == "RUNNING" and self._runners[name].beat():
            return
        self._put(name, Event(lifecycle.REPORTS[state], reason=f"the component reported {state} by UpdateState"))

    def stop(self) -> None:
        """Ends all components, dependents first; `run` returns when that is done, at the latest after `stop_s`."""
        self._stop_by = self._stop_by or time.monotonic() + self._stop_s
        self._put("", None)

    def set_defaults(self, defaults: run_as.Defaults) -> None:
        """The nucleus's `runWithDefault`; scripts that start from now on follow it."""
        self._defaults = defaults
        for one in self._runners.values():
            one.limit()

    async def pause(self, name: str) -> None:
        """Freezes a RUNNING component. Raises confine.Unavailable (also for another state) and KeyError."""
        await self._overlaps.alone(name).pause()

    async def resume(self, name: str) -> None:
        """Lets it go on. Raises like `pause`; a component that cannot be resumed is restarted."""
        try:
            self._runners[name].resume()
        except confine.Unavailable:
            self.restart(name)
            raise

    # ---- to and from another process image -------------------------------------------------------------------------

    def carry(self) -> carrying.Components | None:
        """Everything as it is in this moment; None while events wait or it does not run."""
        if self._tools is None or not self._queue.empty() or len(self._runners) > len(self._overlaps.names()):
            return None
        return handover.collect(self._runners.values(), self._tools.processes, self._generation)

    def take_over(self, carried: carrying.Components, names: Container[str]) -> None:
        """Before `run`: what was carried goes on, where it is among `names` or was being removed."""
        self._carried, self._generation = carried, carried.generation
        for one in carried.runners:
            if one.removing or one.record.name in names:
                self._runners[one.record.name] = handover.restore(one)
                self._tokens[one.token] = one.record.name

    def health(self) -> dict[str, Health]:
        return {name: self._overlaps.health(name) for name in self._overlaps.names()}

    async def changed(self, seen: int) -> int:
        """Waits until `revision` is above `seen`; no deadline here, callers set theirs."""
        while self.revision <= seen:
            await self._news.wait()
        return self.revision

    def component(self, name: str, *, staying: bool = False) -> Component | None:
        known = self._runners.get(name)
        return known.record if known is not None and not (staying and known.removing) else None

    def token(self, name: str) -> str:
        """The component's token, 16 upper-case letters, the same until it is removed. Raises KeyError."""
        return self._runners[name].token

    def identify(self, token: str) -> str | None:
        return self._tokens.get(token)

    # ---- the actor -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until `stop` has ended every component. When cancelled it kills every process at once."""
        processes = process.Processes(self._places.processes, number=self._carried.number)
        try:
            async with asyncio.TaskGroup() as group:
                self._tools = starter.Tools(
                    places=self._places,
                    environment=self._environment,
                    processes=processes,
                    group=group,
                    post=self._post,
                    noticed=self._bump,
                    defaults=lambda: self._defaults,
                    groups=self._groups,
                    before_install=self.keeper.before_install,
                    log=self._log,
                )
                for one in self._runners.values():
                    one.open(self._tools)
                handover.resume(self._runners, self._carried, processes, group)
                await self._work()
                for one in self._runners.values():
                    one.cancel()
        finally:
            self._groups.thaw_all()
            processes.kill_now()
            for one in self._runners.values():
                one.close()
            processes.close()
            self._tools = None

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._stop_by and max(self._stop_by - time.monotonic(), 0)):
                    item = await self._queue.get()
            except TimeoutError:
                left = ", ".join(name for name, one in self._runners.items() if not lifecycle.closed(one.life))
                self._log.error("supervisor.stop_timed_out", components=left, after_s=self._stop_s)
                return
            self._handle(*item)
            self._end_what_may_end()
            if self._stop_by is not None and all(lifecycle.closed(one.life) for one in self._runners.values()):
                return

    def _handle(self, who: str | runner.Runner, what: Event | Effect | None, generation: int) -> None:
        known = self._runners.get(who) if isinstance(who, str) else who
        if known is None or known not in self._runners.values():
            return
        if what is None:
            self._overlaps.abandon(known)
        elif isinstance(what, Effect):
            self._overlaps.adopt(known, what, generation)
        else:
            self._step(*(self._overlaps.meant(known, what) if isinstance(who, str) else (known, what)))

    def _step(self, first: runner.Runner, event: Event) -> None:
        """Steps one life and those of the dependents that this made ready or not ready."""
        before = lifecycle.is_ready(first.life)
        if self._advance(first, event) and lifecycle.is_ready(first.life) != before:
            self._refresh(readiness.hard_dependents(self._runners, first.record.name))

    def _refresh(self, runners: list[runner.Runner]) -> None:
        """Tells lives whether their dependencies are ready, where that changed, and so on up the dependents."""
        todo = deque(runners)
        while todo and self._stop_by is None:
            one = todo.popleft()
            ready = not readiness.missing(self._runners, one)
            if ready == one.life.ready:
                continue
            before = lifecycle.is_ready(one.life)
            self._advance(one, Event(Kind.READY if ready else Kind.NOT_READY))
            if lifecycle.is_ready(one.life) != before:
                todo.extend(readiness.hard_dependents(self._runners, one.record.name))

    def _advance(self, one: runner.Runner, event: Event) -> bool:
        name, before = one.record.name, one.life
        try:
            one.life, commands = transitions.step(before, event, time.monotonic())
        except lifecycle.Illegal as illegal:
            self._log.warning("component.event_ignored", component=name, why=str(illegal))
            return False
        one.perform(commands)
        if one.life.state is not before.state:
            one.since_at = time.time()
            fields = {"code": one.life.code, "why": one.life.reason} if one.life.code != "NONE" else {}
            self._log.info(
                "component.state", component=name, version=one.record.version, state=one.life.state.name, **fields
            )
        if one.life.state is State.UNINSTALLED and one.removing:  # else it was adopted again meanwhile
            one.close()
            del self._runners[name], self._tokens[one.token]
        self._tell(one, before)
        self._overlaps.after(one, before)
        return True

    def _bump(self) -> None:
        self.revision += 1
        self._news.set()
        self._news = asyncio.Event()

    def _tell(self, one: runner.Runner, before: lifecycle.Life) -> None:
        self._bump()
        seen = self._runners.get(one.record.name) in (one, None) or one.life.state is State.BROKEN
        if seen and (one.life.state, one.life.code) != (before.state, before.code):
            self._on_change(self._overlaps.health(one.record.name, one))

    # ---- the order of ending -------------------------------------------------------------------------------------

    def _end_what_may_end(self) -> None:
        """Stops or removes what shall end and what no hard dependent needs any more; again, as some end at once."""
        while found := readiness.may_end(self._runners, all_end=self._stop_by is not None):
            for one in found:
                one.told_to_end = True
                self._step(one, Event(Kind.UNINSTALL if one.removing else Kind.STOP))

    def _new_runner(self, one: Component) -> runner.Runner:
        made = runner.Runner(one, starter.new_token())
        self._tokens[made.token] = one.name
        if self._tools is not None:
            made.open(self._tools)
        return made

    async def _post(self, who: runner.Runner, event: Event) -> None:
        await self._queue.put((who, event, 0))

    def _put(self, name: str, what: Event | Effect | None, generation: int = 0) -> None:
        try:
            self._queue.put_nowait((name, what, generation))
        except asyncio.QueueFull:
            why = f"cannot change component {name}: {QUEUE_SIZE} events wait already"
            raise errors.NucleusError("COMPONENT_UPDATE_ERROR", why) from None
