"""One device in memory: configuration, records of deployments, lives, and a deployment as a generator.

`carry_out` mirrors actors/deployment.py; every `yield` is a place where time passes, scripts end, or the nucleus is killed.
What survives a kill is `tree` and `saved`; everything is decided by the pure core and by actors/standing.py.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from nucleus.actors import standing
from nucleus.core import (
    configuration,
    desired,
    document,
    errors,
    negotiate,
    plan,
    progress,
    recipe,
    status,
    validation,
    version,
)
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, State
from nucleus.host import logs
from nucleus.store import deployments
from tools.walk import gate, lives

DEVICE = desired.Device(root_path="/root", thing_name="t1", platform={"os": "linux"})
REMOVAL_S = 180.0
Ending = Generator[str, None, status.Result]


class Memory:
    """The configuration store's interface without a disk; `wall_ms` may jump."""

    def __init__(self) -> None:
        self.tree = configuration.EMPTY
        self.wall_ms = 1_700_000_000_000
        self._highest = 0

    def now(self) -> int:
        self._highest = max(self.wall_ms, self._highest + 1)
        return self._highest

    def commit(self, changes: Any) -> None:
        self.tree = configuration.apply(self.tree, changes)


class _Silent(logs.Log):
    def __init__(self) -> None:
        pass

    def _write(self, *_: Any, **__: Any) -> None:
        pass

    debug = info = warning = error = _write


class Device:
    """`catalogue` maps a component's name to its recipes, greatest version first."""

    def __init__(self, catalogue: Mapping[str, list[recipe.Recipe]], chance: random.Random) -> None:
        self.catalogue, self.chance = catalogue, chance
        self.store: Any = Memory()
        self.clock = 0.0
        self.lives = lives.Lives(lambda: self.clock)
        self.saved: dict[str, deployments.Record] = {}
        self.removals: list[str] = []

    def save(self, record: deployments.Record) -> None:
        self.saved[record.id] = msgspec.structs.replace(record)

    def restart(self) -> None:
        """A kill and the launch after it."""
        self.lives = lives.Lives(lambda: self.clock)
        records = [msgspec.structs.replace(one) for one in self.saved.values()]
        standing.give_up_on_loops(self, self.store, records, _Silent())  # type: ignore[arg-type]
        for one in desired.installed(self.store.tree).values():
            self.lives.adopt(one, Effect.START)
        self.lives.handle()

    # ---- one deployment ----------------------------------------------------------------------------------------------

    def carry_out(self, record: deployments.Record) -> Ending:
        if standing.is_settled(self.store, record):
            return self._settled_result(record)
        if record.failure is None and not standing.is_committed(self.store, record):
            try:
                yield from self._begin(record)
            except errors.NucleusError as error:
                return status.failure(progress.Failed((error.code,), error.detail), "FAILED_NO_STATE_CHANGE")
        failed = record.failure or (yield from self._apply(record))
        if failed is None or record.document.failure_policy == document.DO_NOTHING:
            return (yield from self._settle(record))
        return (yield from self._roll_back(record, failed))

    def _begin(self, record: deployments.Record) -> Generator[str, None, None]:
        yield "resolving"
        resolved = self.resolve(record)
        yield from self._agree(record, resolved)
        before = self.store.tree
        record.resolved = {name: one.version for name, one in resolved.items()}
        paths = {name: desired.Paths("a", "d", "w") for name in resolved}
        wanted = desired.compose(resolved, record.document, before, paths, DEVICE, stamp=self.store.now())
        record.previous = desired.installed(before)
        record.broken = tuple(sorted(name for name, one in self.lives.health().items() if one.state is State.BROKEN))
        record.undo = configuration.diff(wanted.tree, before)
        self.save(record)
        yield "saved"
        # Everything between save and commit happens at once in the actor, but for the fault switch.
        self.store.commit((*wanted.changes, standing.mark(self.store, record.id)))
        yield "committed"

    def _agree(
        self, record: deployments.Record, resolved: dict[str, negotiate.Candidate]
    ) -> Generator[str, None, None]:
        """Raises NucleusError if a component refuses its configuration, or somebody cancels meanwhile."""
        if self.chance.random() < 0.5:
            return
        going = frozenset(name for name, one in self.lives.health().items() if one.state is State.RUNNING)
        for place in gate.agree(self.chance, lambda: self.clock, going):
            yield place
            if self.chance.random() < 0.01:
                raise errors.NucleusError("DEPLOYMENT_INTERRUPTED", "cancelled while it waits for consent")
        paths = {name: desired.Paths("a", "d", "w") for name in resolved}
        before = self.store.tree
        after = desired.compose(resolved, record.document, before, paths, DEVICE, stamp=self.store.now()).tree
        yield from gate.validate(self.chance, frozenset(validation.proposals(before, after, going)))

    def resolve(self, record: deployments.Record) -> dict[str, negotiate.Candidate]:
        """Raises NucleusError when there is no solution."""
        roots = {record.document.group: {n: wish.version for n, wish in record.document.components.items()}}
        for group, members in desired.roots(self.store.tree).items():
            if group != record.document.group and group not in self.left_groups(record):
                roots[group] = members
        state, answers = negotiate.begin(roots), dict[negotiate.Ask, negotiate.Candidate | None]()
        while isinstance(step := negotiate.step(state, answers), negotiate.Need):
            answers |= {ask: self._candidate(ask) for ask in step.asks}
        if isinstance(step, negotiate.Conflict):
            raise errors.NucleusError(step.code, step.detail)
        return {name: step.components[name] for name in step.order}

    def _candidate(self, ask: negotiate.Ask) -> negotiate.Candidate | None:
        ranges = [version.Range.parse(text) for _, text in ask.requirements]
        for one in self.catalogue.get(ask.name, ()):
            if all(wanted.allows(version.Version.parse(one.version)) for wanted in ranges):
                return negotiate.Candidate(name=ask.name, version=one.version, recipe=one)
        return None

    def left_groups(self, record: deployments.Record) -> frozenset[str]:
        if record.groups is None:
            return frozenset()
        current = {f"thinggroup/{name}" for name in record.groups} | {record.document.group}
        found = desired.roots(self.store.tree)
        return frozenset(one for one in found if one.startswith("thinggroup/") and one not in current)

    def _apply(self, record: deployments.Record) -> Generator[str, None, deployments.Failure | None]:
        installed = desired.installed(self.store.tree)
        target = {name: one for name, one in installed.items() if name in record.resolved}
        steps = plan.plan(record.previous or {}, target, broken=record.broken).steps
        changed = {one.component.name: one.component for one in steps if one.effect is not Effect.KEEP}
        expected = progress.Expectation(
            generations=self._hand_over(record, target),
            changed=frozenset(changed),
            deadline_at=self._deadline(record),
            watch_s=progress.watch_s(changed, record.document.watch_s, local=False),
        )
        verdict = yield from self._watch(expected)
        if isinstance(verdict, progress.Done):
            return None
        record.failure = deployments.Failure(verdict.stack, verdict.cause)
        self.save(record)
        yield "failed"
        return record.failure

    def _hand_over(self, record: deployments.Record, target: Mapping[str, Component]) -> dict[str, int]:
        health = self.lives.health()
        actual = {name: self.lives.all[name].record for name in self.lives.names()}
        excused = record.broken if record.failure is not None else ()
        broken = [name for name, one in health.items() if one.state is State.BROKEN and name not in excused]
        generations = {}
        for step in plan.plan(actual, target, broken=broken).steps:
            name = step.component.name
            if step.effect is Effect.KEEP and actual.get(name) == step.component:
                generations[name] = health[name].generation
            else:
                generations[name] = self.lives.adopt(step.component, step.effect)
        return generations

    def _watch(self, expected: progress.Expectation) -> Generator[str, None, progress.Done | progress.Failed]:
        watch: progress.Watch | None = None
        while isinstance(verdict := progress.judge(expected, self.lives.health(), watch, self.clock), progress.Waiting):
            watch = verdict.watch
            yield "watching"
        return verdict

    def _settle(self, record: deployments.Record) -> Ending:
        removed: frozenset[str] = frozenset()
        if record.failure is None:
            removed = frozenset(desired.installed(self.store.tree)) - frozenset(record.resolved)
        yield from self._remove(removed)
        changes = desired.settle(self.store.tree, record.document, self.left_groups(record), removed, self.store.now())
        self.store.commit((*changes, standing.settled(self.store, record)))
        yield "settled"
        return self._settled_result(record)

    def _remove(self, names: frozenset[str]) -> Generator[str, None, None]:
        there = {name: self.lives.all[name].record for name in self.lives.names() if name in names}
        for one in plan.plan(there, {}).removals:
            self.removals.append(one.name)
            self.lives.remove(one.name)
        until = self.clock + REMOVAL_S
        while names & self.lives.all.keys() and self.clock < until:
            yield "removing"

    def _roll_back(self, record: deployments.Record, failure: deployments.Failure) -> Ending:
        self.save(record)
        standing.roll_back_configuration(self.store, record)
        yield "rolled back"
        previous = record.previous or {}
        expected = progress.Expectation(
            generations=self._hand_over(record, previous),
            changed=frozenset(),
            excused=plan.with_dependents(record.broken, previous),
            deadline_at=self._deadline(record),
            watch_s=0.0,
        )
        yield from self._remove(frozenset(self.lives.names()) - frozenset(previous))
        verdict = yield from self._watch(expected)
        cause = progress.Failed(failure.stack, failure.cause)
        if isinstance(verdict, progress.Failed):
            return status.failure(cause, "FAILED_UNABLE_TO_ROLLBACK")
        return status.failure(cause, "FAILED_ROLLBACK_COMPLETE")

    def _deadline(self, record: deployments.Record) -> float:
        return self.clock + record.document.deadline_s if record.document.deadline_s else 0.0

    def _settled_result(self, record: deployments.Record) -> status.Result:
        if record.failure is None:
            return status.success()
        failed = progress.Failed(record.failure.stack, record.failure.cause)
        return status.failure(failed, "FAILED_ROLLBACK_NOT_REQUESTED")
