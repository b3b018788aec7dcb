"""The supervisor as a value in memory: the same rules around core.transitions, without processes.

It mirrors actors/supervisor.py and actors/runner.py: which script runs, who is told what; who waits for whom and updates beside
the old version are the real modules. An event that has no row is dropped there with a warning and here; the end of a script
must always have one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from nucleus.actors import overlaps, readiness
from nucleus.core import lifecycle, overlap, transitions
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, Event, Health, KillProcesses, Kind, Life, Phase, RunScript, State, TakeRecord

MAIN = (Phase.STARTUP, Phase.RUN)
# done, nothing to run, failed
OUTCOMES = {**lifecycle.OUTCOMES, Phase.KILL: (Kind.KILLED, Kind.KILLED, Kind.KILLED)}


class One:
    """One component under supervision; `busy` are the scripts that run, `used` the record they come from."""

    def __init__(self, record: Component) -> None:
        self.record = self.used = record
        self.life = Life()
        self.removing = self.told_to_end = self.lodger = False
        self.process_name = record.name
        self.busy: set[Phase] = set()
        self.spawned = False

    def lodge(self, process_name: str) -> One:
        made = One(self.record)
        made.process_name, made.lodger = process_name, True
        return made

    def life_by_policy(self) -> Life:
        return self.life

    def is_paused(self) -> bool:
        return False

    def limit(self) -> None:
        pass

    def close(self) -> None:
        assert not self.busy, f"{self.busy} of a process that is forgotten"

    def waiting_for(self) -> str:
        return ""

    def health(self, waiting_for: str) -> Health:
        return Health(
            name=self.record.name,
            version=self.record.version,
            state=self.life.state,
            settled=lifecycle.settled(self.life),
            generation=self.life.generation,
            failures=self.life.failures,
            waiting_for=waiting_for,
        )


class _Silent:
    def info(self, *_: Any, **__: Any) -> None:
        pass


class Lives:
    """All components; `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.all: dict[str, One] = {}
        self._now = now
        self._generation = 0
        self._adopted: deque[tuple[str, Effect, int]] = deque()  # not handled yet, as in the actor's queue
        self._runners: Any = self.all  # what of runners the real modules use, One has
        silent: Any = _Silent()
        self._overlaps = overlaps.Overlaps(self._runners, self._step, self._refresh, lambda _: None, silent)

    def adopt(self, record: Component, effect: Effect) -> int:
        self._generation += 1
        one = self.all.setdefault(record.name, One(record))
        one.record = record
        one.removing = one.told_to_end = False
        self._adopted.append((record.name, effect, self._generation))
        return self._generation

    @property
    def behind(self) -> bool:
        """Whether records were adopted that the lives do not know of yet."""
        return bool(self._adopted)

    def handle(self) -> None:
        """What the actor does before anything else may happen to components."""
        while self._adopted:
            name, effect, generation = self._adopted.popleft()
            if name in self.all:
                known: Any = self.all[name]
                self._overlaps.adopt(known, effect, generation)
                self._end_what_may_end()
        self._end_what_may_end()

    def remove(self, name: str) -> None:
        if name in self.all:
            self.all[name].removing = True

    def names(self) -> list[str]:
        return self._overlaps.names()

    def health(self) -> dict[str, Health]:
        return {name: self._overlaps.health(name) for name in self.names()}

    def ask(self, name: str, event: Event) -> None:
        """A request or a report that only names the component."""
        known: Any = self.all[name]
        meant: Any = self._overlaps.meant(known, event)
        self.step(*meant)

    def end(self, one: One, phase: Phase, outcome: int) -> None:
        """A script ends: `outcome` indexes OUTCOMES. A Run that has not told that it runs tells that first."""
        kind = OUTCOMES[phase][outcome]
        if phase is Phase.RUN and not one.spawned and kind is not Kind.RUN_NOTHING:
            one.spawned = True
            self.step(one, Event(Kind.RUN_SPAWNED), must=True)
            return
        one.busy.discard(phase)
        self.step(one, Event(kind, "", "it failed" if outcome == 2 else ""), must=True)

    def step(self, one: One, event: Event, *, must: bool = False) -> None:
        self._step(one, event, must)
        self._end_what_may_end()

    def _step(self, one: Any, event: Event, must: bool = False) -> None:
        before = lifecycle.is_ready(one.life)
        if self._advance(one, event, must) and lifecycle.is_ready(one.life) != before:
            self._refresh(readiness.hard_dependents(self._runners, one.record.name))

    def _advance(self, one: One, event: Event, must: bool = False) -> bool:
        before = one.life
        try:
            one.life, commands = transitions.step(before, event, self._now())
        except lifecycle.Illegal:
            assert not must, f"the end of a script means nothing: {event.kind} in {one.life}"
            return False
        for command in commands:
            self._perform(one, command)
        self._check(one)
        if one.life.state is State.UNINSTALLED and one.removing:
            self.all.pop(one.record.name, None)
        known: Any = one
        self._overlaps.after(known, before)
        return True

    def _perform(self, one: One, command: lifecycle.Command) -> None:
        if isinstance(command, TakeRecord):
            one.used = one.record
        elif isinstance(command, KillProcesses):
            assert Phase.KILL not in one.busy, "two ends of one component's processes"
            one.busy = {Phase.KILL}
        elif isinstance(command, RunScript):
            assert command.phase not in one.busy, f"{command.phase} twice at once"
            if command.phase is Phase.STARTUP:
                assert not one.busy, f"started while {one.busy} of it runs"
                self._check_alone(one)
                one.spawned = False
            one.busy.add(command.phase)

    def _check(self, one: One) -> None:
        life = one.life
        assert life.doing is None or life.doing in one.busy, f"waits for {life.doing} that nobody does"
        if life.doing is None and life.desired:
            assert life.state is State.INSTALLED, f"{life.desired} is desired in {life.state} and nothing happens"
            assert not life.ready
        if life.state in (State.FINISHED, State.UNINSTALLED, State.BROKEN) and life.doing is None:
            assert not one.busy, f"{one.busy} of a component that is {life.state.name}"

    def _check_alone(self, one: One) -> None:
        known: Any = one
        assert not readiness.missing(self._runners, known), "started before its hard dependencies were ready"
        main, beside = self.all[one.record.name], self.all.get(one.record.name + overlap.SUFFIX)
        if one is main:
            assert beside is None, "started while another process of it is there"
        else:
            assert main.life.state is State.RUNNING, "started beside nothing"
            assert one is beside
            assert one.process_name != main.process_name

    def _refresh(self, ones: list[Any]) -> None:
        todo = deque(ones)
        while todo:
            one = todo.popleft()
            ready = not readiness.missing(self._runners, one)
            if ready == one.life.ready:
                continue
            before = lifecycle.is_ready(one.life)
            self._advance(one, Event(Kind.READY if ready else Kind.NOT_READY))
            if lifecycle.is_ready(one.life) != before:
                todo.extend(readiness.hard_dependents(self._runners, one.record.name))

    def _end_what_may_end(self) -> None:
        for one in [one for one in self._runners.values() if one.removing]:
            self._overlaps.abandon(one)
        while found := readiness.may_end(self._runners, all_end=False):
            for one in found:
                one.told_to_end = True
                self._step(one, Event(Kind.UNINSTALL))
