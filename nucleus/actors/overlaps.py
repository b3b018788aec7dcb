"""Updates beside the old version: the second runner of a component, and who of the two is the component.

The successor is a runner of its own with a life from NEW on, kept under `<name>~`. While it comes up the old one is the
component for everybody else: ready for its dependents, RUNNING. When it is RUNNING the two change places, and the old one is
stopped with its own Shutdown; if it becomes BROKEN it stays as the reason of a failed deployment, until the way back finds
the old one living. Whatever else is asked of the component meanwhile ends the successor and goes the ordinary way.
What applies when is core/overlap.py.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from nucleus.actors import readiness, runner
from nucleus.core import lifecycle, overlap
from nucleus.core.lifecycle import Effect, Event, Health, Kind, State
from nucleus.host import confine, logs


class Overlaps:
    """`runners` are the supervisor's, and changed here. `step` performs an event, `refresh` looks at dependencies again."""

    def __init__(
        self,
        runners: dict[str, runner.Runner],
        step: Callable[[runner.Runner, Event], None],
        refresh: Callable[[list[runner.Runner]], None],
        on_change: Callable[[Health], None],
        log: logs.Log,
    ) -> None:
        self._runners = runners
        self._step = step
        self._refresh = refresh
        self._on_change = on_change
        self._log = log

    def adopt(self, known: runner.Runner, effect: Effect, generation: int) -> None:
        """A record that the component is to have: beside the old one, or in the ordinary way."""
        if self._take(known, effect, generation):
            return
        self._refresh([known])
        known.life = known.life_by_policy()
        self._step(known, Event(lifecycle.request(known.life, effect), generation=generation))
        known.limit()

    def _take(self, known: runner.Runner, effect: Effect, generation: int) -> bool:
        """False: the ordinary way is to be gone."""
        beside = self._runners.get(known.record.name + overlap.SUFFIX)
        if beside is None:
            return effect is Effect.OVERLAP and self._begin(known, generation)
        if not readiness.is_successor(beside):
            return False
        if effect is Effect.KEEP:
            beside.record = known.record
            self._step(beside, Event(Kind.KEEP, generation=generation))
            return True
        self._abandon(beside)
        if known.life.state is not State.RUNNING or known.used != known.record:
            # One that has failed for good is gone at once, and the next may be tried beside the old one.
            gone = known.record.name + overlap.SUFFIX not in self._runners
            return gone and effect is Effect.OVERLAP and self._begin(known, generation)
        self._log.info("component.stays", component=known.record.name, version=known.record.version)
        self._step(known, Event(Kind.KEEP, generation=generation))
        return True

    def meant(self, known: runner.Runner, event: Event) -> tuple[runner.Runner, Event]:
        """Who of the two is meant by a request or a report that only names the component."""
        beside = self._runners.get(known.record.name + overlap.SUFFIX)
        if beside is None or not readiness.is_successor(beside):
            return known, event
        if overlap.is_successors(event, beside.life):
            return beside, event
        if event.kind in (Kind.STOP, Kind.RESTART, Kind.UNINSTALL):
            event = structs.replace(event, generation=beside.life.generation)
            self._abandon(beside)
        return known, event

    def alone(self, name: str) -> runner.Runner:
        """The component's only runner. Raises confine.Unavailable while there are two, and KeyError."""
        if name + overlap.SUFFIX in self._runners:
            raise confine.Unavailable("it is being updated beside its old version")
        return self._runners[name]

    def abandon(self, known: runner.Runner) -> None:
        """The component is to be removed: no successor of it any more. Nothing if it was adopted again meanwhile."""
        beside = self._runners.get(known.record.name + overlap.SUFFIX)
        if known.removing and beside is not None and readiness.is_successor(beside):
            self._abandon(beside)

    def after(self, one: runner.Runner, before: lifecycle.Life) -> None:
        """Whatever happened to a life: changes places, forgets what has ended."""
        if readiness.is_up(before) and not readiness.is_up(one.life):
            self._refresh([one])  # to go on it needs less than to start
        name = one.record.name
        main, beside = self._runners.get(name), self._runners.get(name + overlap.SUFFIX)
        if main is None or beside is None:
            return
        if not readiness.is_successor(beside):
            if lifecycle.closed(beside.life):
                beside.close()
                del self._runners[name + overlap.SUFFIX]
                self._look_again(name)
        elif overlap.is_over(beside.life) or main.life.state is not State.RUNNING:
            self._change_places(main, beside)
        elif beside.life.state is State.BROKEN and before.state is not State.BROKEN:
            self._look_again(name)  # the old one serves

    def health(self, name: str, gone: runner.Runner | None = None) -> Health:
        """The component's, whoever it is; `gone` was it if there is none any more. Raises KeyError."""
        main, beside = self._runners.get(name, gone), self._runners.get(name + overlap.SUFFIX)
        if main is None:
            raise KeyError(name)
        shown = main.health(readiness.waiting_for(self._runners, main))
        if beside is None:
            return shown
        other = beside.health(readiness.waiting_for(self._runners, beside))
        return (overlap.health if readiness.is_successor(beside) else overlap.leaving_health)(shown, other)

    def names(self) -> list[str]:
        """Of all components, each once."""
        return [name for name in self._runners if not name.endswith(overlap.SUFFIX)]

    def _begin(self, known: runner.Runner, generation: int) -> bool:
        """False if it cannot be."""
        name = known.record.name
        bearable = overlap.can_begin(known.life) and overlap.applies(known.used, known.record, frozenset())
        if known.is_paused() or not bearable:
            return False
        self._log.info("component.beside", component=name, old_version=known.used.version, version=known.record.version)
        one = self._runners[name + overlap.SUFFIX] = known.lodge(overlap.process_name(name, known.process_name))
        self._look_again(name)
        self._refresh([one])
        one.life = one.life_by_policy()
        self._step(one, Event(Kind.START, generation=generation))
        one.limit()
        return True

    def _change_places(self, old: runner.Runner, new: runner.Runner) -> None:
        """The successor is the component from now on, and its predecessor ends."""
        name = old.record.name
        self._runners[name], self._runners[name + overlap.SUFFIX] = new, old
        new.lodger, old.lodger = False, True
        new.removing, new.told_to_end, old.told_to_end = old.removing, old.told_to_end, True
        self._log.info("component.succeeded", component=name, version=new.used.version, old_version=old.used.version)
        self._look_again(name)
        self._step(old, Event(Kind.STOP))
        self._on_change(self.health(name))

    def _abandon(self, beside: runner.Runner) -> None:
        beside.told_to_end = True
        self._step(beside, Event(Kind.STOP))

    def _look_again(self, name: str) -> None:
        """At the component itself and at those that wait for it or need it."""
        self._refresh([self._runners[name], *readiness.hard_dependents(self._runners, name)])
