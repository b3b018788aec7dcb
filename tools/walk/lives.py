"""The supervisor as a value in memory: the same rules around core.transitions, without processes.

It mirrors actors/supervisor.py and actors/runner.py: readiness of dependents, the order of ending, which script runs. An
event that has no row is dropped there with a warning and here; the end of a script must always have one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from nucleus.core import lifecycle, transitions
from nucleus.core.component import HARD, Component
from nucleus.core.lifecycle import Effect, Event, Health, KillProcesses, Kind, Life, Phase, RunScript, State, TakeRecord

MAIN = (Phase.STARTUP, Phase.RUN)
OUTCOMES = {  # done, nothing to run, failed
    Phase.INSTALL: (Kind.INSTALL_DONE, Kind.INSTALL_DONE, Kind.INSTALL_FAILED),
    Phase.STARTUP: (Kind.STARTUP_DONE, Kind.STARTUP_NOTHING, Kind.STARTUP_FAILED),
    Phase.RUN: (Kind.RUN_DONE, Kind.RUN_NOTHING, Kind.RUN_FAILED),
    Phase.SHUTDOWN: (Kind.SHUTDOWN_DONE, Kind.SHUTDOWN_DONE, Kind.SHUTDOWN_FAILED),
    Phase.RECOVER: (Kind.RECOVER_ENDED, Kind.RECOVER_ENDED, Kind.RECOVER_ENDED),
    Phase.UNINSTALL: (Kind.UNINSTALL_DONE, Kind.UNINSTALL_DONE, Kind.UNINSTALL_FAILED),
    Phase.KILL: (Kind.KILLED, Kind.KILLED, Kind.KILLED),
}


class One:
    """One component under supervision; `busy` are the scripts that run, `used` the record they come from."""

    def __init__(self, record: Component) -> None:
        self.record = self.used = record
        self.life = Life()
        self.removing = self.told = False
        self.busy: set[Phase] = set()
        self.spawned = False


class Lives:
    """All components; `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.all: dict[str, One] = {}
        self._now = now
        self._generation = 0
        self._adopted: deque[tuple[str, Effect, int]] = deque()  # not handled yet, as in the actor's queue

    def adopt(self, record: Component, effect: Effect) -> int:
        self._generation += 1
        one = self.all.setdefault(record.name, One(record))
        one.record = record
        one.removing = one.told = False
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
                one = self.all[name]
                self._refresh([one])
                self.step(one, Event(lifecycle.request(one.life, effect), generation=generation))
        self._end_what_may_end()

    def remove(self, name: str) -> None:
        if name in self.all:
            self.all[name].removing = True

    def health(self) -> dict[str, Health]:
        return {
            name: Health(
                name=name,
                version=one.record.version,
                state=one.life.state,
                settled=lifecycle.settled(one.life),
                generation=one.life.generation,
                failures=one.life.failures,
            )
            for name, one in self.all.items()
        }

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

    def _step(self, one: One, event: Event, must: bool = False) -> None:
        before = lifecycle.is_ready(one.life)
        if self._advance(one, event, must) and lifecycle.is_ready(one.life) != before:
            self._refresh(self._hard_dependents(one.record.name))

    def _advance(self, one: One, event: Event, must: bool = False) -> bool:
        try:
            one.life, commands = transitions.step(one.life, event, self._now())
        except lifecycle.Illegal:
            assert not must, f"the end of a script means nothing: {event.kind} in {one.life}"
            return False
        for command in commands:
            self._perform(one, command)
        self._check(one)
        if one.life.state is State.UNINSTALLED and one.removing:
            self.all.pop(one.record.name, None)
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
                assert not self._missing(one), "started before its hard dependencies were ready"
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

    def _refresh(self, ones: list[One]) -> None:
        todo = deque(ones)
        while todo:
            one = todo.popleft()
            ready = not self._missing(one)
            if ready == one.life.ready:
                continue
            before = lifecycle.is_ready(one.life)
            self._advance(one, Event(Kind.READY if ready else Kind.NOT_READY))
            if lifecycle.is_ready(one.life) != before:
                todo.extend(self._hard_dependents(one.record.name))

    def _end_what_may_end(self) -> None:
        while found := [one for one in self.all.values() if one.removing and not one.told and not self._needed(one)]:
            for one in found:
                one.told = True
                self._step(one, Event(Kind.UNINSTALL))

    def _needed(self, one: One) -> bool:
        if one.life.state not in (State.STARTING, State.RUNNING, State.STOPPING):
            return False
        leaving = [each for each in self._hard_dependents(one.record.name) if each.removing]
        return any(not lifecycle.closed(each.life) for each in leaving)

    def _hard_dependents(self, name: str) -> list[One]:
        return [one for one in self.all.values() if one.record.dependencies.get(name) == HARD]

    def _missing(self, one: One) -> list[str]:
        hard = [name for name, kind in one.record.dependencies.items() if kind == HARD]
        return [name for name in hard if name not in self.all or not lifecycle.is_ready(self.all[name].life)]
