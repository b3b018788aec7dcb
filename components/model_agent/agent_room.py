"""What is in memory: brings models in within the budget, exchanges, evicts and reloads them, and measures what they take.

A change of one alias goes through `arrival`: the new model is in memory beside (or, for `replace`, instead of) the old one
while the caller checks and records it; `install` makes it answer; without that the old one answers as before, reloaded if
it had to go. Requests that meet a model which is out of memory call `wake`, which waits for the exchange or reloads it.
One model is loaded at a time: what others allocate meanwhile would be measured as its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import agent_budget
import agent_check
import agent_entry
import agent_guard
import agent_loader
import agent_registry
import agent_space
import agent_table
import agent_verdicts

DRAIN_S = 10.0  # an old model's requests get this long before it makes room for the new one
RETRY_S = 0.05  # between two tries to reload where there is no room
LITTER_TURNS = 3


class Room:
    """The models of one agent in memory; `note(alias, event)` records what happened to one in the table."""

    def __init__(self, registry: agent_registry.Registry, budget_bytes: int, note: Callable[[str, Any], Any]) -> None:
        self._registry = registry
        self._note = note
        self._gap: set[str] = set()  # their old model had to go before the new one: who asks waits
        self._loader = agent_loader.Loader(registry)
        self._space = agent_space.Space(budget_bytes, self._loader, note)
        self.serving, self.candidates = self._space.serving, self._space.candidates
        self.told = self._loader.told  # what this system cannot do; empty if nothing
        self._changed = threading.Condition()  # its lock is reentrant
        self._in_line = 0  # new models that wait for one that just came back: no other comes back before them
        self._litter = 0  # turns in which to look for what a load that failed left; its error may hold it at first

    def fetch(self, alias: str, held: agent_entry.Held) -> agent_loader.Package:
        """The agent's own copy; raises agent_registry.StoreError, agent_check.RefusedError."""
        return self._loader.fetch(alias, held)

    def still(self) -> contextlib.AbstractContextManager[Any]:
        """For a large allocation: while it is made, nothing is measured."""
        return self._changed

    # ---- changes of one alias ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def arrival(
        self, package: agent_loader.Package, way: agent_budget.Way, *, beside: bool = False
    ) -> Iterator[agent_loader.Serving]:
        """The model, loaded and warm, for the block; raises agent_check.RefusedError, then nothing that answers changed.

        `beside`: what serves is needed in memory, too, and comes back if it has to.
        """
        alias = package.alias
        with self._changed:
            new = self._space.arriving[alias] = self._in_turn(package, way, beside)
        try:
            yield new
        except BaseException:
            with self._changed:
                self._undo(alias, new)
            raise
        finally:
            with self._changed:
                self._space.arriving.pop(alias, None)
                self._gap.discard(alias)
                self._changed.notify_all()

    def install(self, alias: str, new: agent_loader.Serving) -> None:
        """From now on `new` answers; requests under way finish with the model they began with."""
        with self._changed:
            old, self.serving[alias] = self.serving.get(alias), new
            self._drop(alias)
            self._leave(old, new)
            self._gap.discard(alias)
            self._changed.notify_all()

    def try_out(self, alias: str, new: agent_loader.Serving) -> None:
        """From now on `new` is the candidate."""
        with self._changed:
            self._drop(alias, new)
            self.candidates[alias] = new

    def drop(self, alias: str) -> None:
        """The candidate leaves, if there is one."""
        with self._changed:
            self._drop(alias)

    def forget(self, alias: str) -> None:
        """Nothing answers any more."""
        with self._changed:
            self._drop(alias)
            self._leave(self.serving.pop(alias, None))

    def settle(self, wait_s: float = 0.0) -> None:
        """Gives back the memory of models whose last requests are done; who will not wait may find that it is no time."""
        end = time.monotonic() + wait_s
        for each in list(self._space.leaving):
            each.model.wait(max(0.0, end - time.monotonic()))
        if not self._changed.acquire(blocking=wait_s > 0):
            return  # a model is being loaded
        try:
            left = [each for each in self._space.leaving if not each.model.gone]
            if len(left) < len(self._space.leaving) or self._litter > 0:
                self._space.leaving[:] = left
                self._loader.free(collect=self._litter > 0)
                self._litter = max(0, self._litter - 1)
            self._space.relieve()
        finally:
            self._changed.release()

    def _drop(self, alias: str, instead: agent_loader.Serving | None = None) -> None:
        self._leave(self.candidates.pop(alias, None), instead, self.serving.get(alias))

    def _leave(self, old: agent_loader.Serving | None, *stay: agent_loader.Serving | None) -> None:
        if old is not None and not any(each is not None and each.model is old.model for each in stay):
            old.model.retire()
            self._space.leaving.append(old)

    # ---- into memory -------------------------------------------------------------------------------------------------

    def _in_turn(self, package: agent_loader.Package, way: agent_budget.Way, beside: bool) -> agent_loader.Serving:
        """`_bring`, once models that just came back may go again; requests to those that left let it go first."""
        began, end = time.monotonic(), time.monotonic() + (package.limit_s or DRAIN_S)
        while True:
            try:
                return self._bring(package.left(began), way, beside)
            except agent_space.SettlingError as error:
                if error.until >= end:
                    raise
                until = error.until
            self._in_line += 1
            try:
                while (left_s := until - time.monotonic()) > 0:
                    self._changed.wait(left_s)
            finally:
                self._in_line -= 1

    def _bring(self, package: agent_loader.Package, way: agent_budget.Way, beside: bool) -> agent_loader.Serving:
        alias, started = package.alias, time.monotonic()
        if beside and self.serving[alias].model.gone:
            self._bring_back(package, way)
        old = self.serving.get(alias)
        if old is None or old.model.gone:
            way = agent_budget.Way.SPILL  # nothing to exchange: others make room
        need = self._space.measured_need(package, way)
        decision, new = self._space.make(need, way), None
        package = package.left(started)
        try:
            if decision.action is agent_budget.Action.REPLACE and old is not None:
                return self._replace(package, old)
            new = self._loader.load(package)
            decision = self._space.make(self._space.need(package), way)  # by what was measured
        except BaseException:  # also of a system that has no more threads: nobody may wait for ever
            self._undo(alias, new)
            raise
        if decision.action is agent_budget.Action.REPLACE and old is not None:
            self._gap.add(alias)
            if not old.model.drain(DRAIN_S):
                self._undo(alias, new)
                raise agent_space.busy(alias, DRAIN_S)
        return new

    def _bring_back(self, package: agent_loader.Package, way: agent_budget.Way) -> None:
        """What serves comes back for the one beside it, but only where there is room for both."""
        alias, old = package.alias, self.serving[package.alias]
        held = self._registry.aliases[alias].serving
        serving = self._loader.need(alias, held, old.size, old.settings.isolated)
        self._space.check_both(serving, self._space.measured_need(package, way, serving), way)
        reason = self._reload(alias, held, old)
        if reason:
            raise agent_check.RefusedError(f"{held.version} did not come back: {reason}", "RESOURCE_EXHAUSTED")

    def _replace(self, package: agent_loader.Package, old: agent_loader.Serving) -> agent_loader.Serving:
        """Old out, new in, or old in again; refused beforehand where both loads would take longer than the gap."""
        alias, gap_s, started = package.alias, package.settings.gap_s, time.monotonic()
        expected_s = 2 * self._loader.seconds(old.digest, old.size)
        expected_s += self._loader.seconds(package.held.key, len(package.model))
        if expected_s > gap_s:
            raise agent_check.RefusedError(
                f"exchanging it for {old.version} may take {expected_s:.1f} s, gapSeconds is {gap_s:g}", "GAP_TOO_SHORT"
            )
        self._gap.add(alias)
        drain_s = min(gap_s - expected_s, DRAIN_S)
        if not old.model.drain(drain_s):
            self._undo(alias, None)
            raise agent_space.busy(package.alias, drain_s)
        self._loader.free()
        left_s = gap_s - (time.monotonic() - started) - self._loader.seconds(old.digest, old.size)
        limit_s = min(package.limit_s or left_s, max(0.1, left_s))
        new = None
        try:
            new = self._loader.load(dataclasses.replace(package, limit_s=limit_s))
            self._space.make(self._space.need(package), agent_budget.Way.OVERLAP)
        except agent_check.RefusedError as error:
            self._undo(alias, new)
            taken_s = time.monotonic() - started
            raise agent_check.RefusedError(
                f"{error} ({old.version} was back after {taken_s:.2f} s)", error.code
            ) from error
        return new

    def _undo(self, alias: str, new: agent_loader.Serving | None) -> None:
        """The old model answers again, if it had to go."""
        self._litter = LITTER_TURNS
        if self.serving.get(alias) is new and new is not None:
            return  # it was installed before something else failed
        if new is not None and self.candidates.get(alias) is not new:
            new.model.retire()
        had_to_go = alias in self._gap
        self._space.arriving.pop(alias, None)
        self._gap.discard(alias)
        self._loader.free()
        old = self.serving.get(alias)
        if old is not None and old.model.gone and had_to_go and self._registry.aliases.get(alias) is not None:
            held = self._registry.aliases[alias].serving
            with contextlib.suppress(Exception):  # the next request tries again
                self.serving[alias] = self._loader.load(self._loader.fetch(alias, held))
        self._changed.notify_all()

    # ---- out of memory, and back -------------------------------------------------------------------------------------

    def restore(self, alias: str, held: agent_entry.Held) -> None:
        """What the store names serves again, in memory where there is room; raises StoreError, RefusedError."""
        package = self._loader.fetch(alias, held)
        with self._changed:
            self.serving[alias] = parked(package)
            try:
                self._space.make(self._space.need(package), agent_budget.Way.OVERLAP)
                self.serving[alias] = self._loader.load(package)
            except agent_check.RefusedError as error:
                if error.code not in agent_verdicts.NOT_FINAL:
                    raise
                # It says something about the moment, not about the model: the next request brings it in.
                if self._registry.aliases[alias].candidate is None:  # of a trial nothing is evicted
                    self._note(alias, agent_table.Evicted())

    def wake(self, alias: str, deadline: float) -> str:
        """Brings the alias back into memory, or waits until its exchange is over; returns why that failed, or nothing.

        `deadline` by time.monotonic(). Nothing answers at all: that is for the caller to see.
        """
        while True:
            reason = self._wake(alias, deadline)
            if not reason or time.monotonic() + RETRY_S >= deadline:
                return reason
            threading.Event().wait(RETRY_S)

    def _wake(self, alias: str, deadline: float) -> str:
        late = f"the deadline passed while {alias} was being loaded"
        if not self._changed.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return late
        try:
            if not self._changed.wait_for(lambda: alias not in self._gap, max(0.0, deadline - time.monotonic())):
                return late
            serving, entry = self.serving.get(alias), self._registry.aliases.get(alias)
            if serving is None or entry is None or not serving.model.closed:
                return ""
            if self._in_line:
                return f"there is no room for {alias} before a new model has come"
            return self._reload(alias, entry.serving, serving)
        finally:
            self._changed.release()

    def _reload(self, alias: str, held: agent_entry.Held, parked: agent_loader.Serving) -> str:
        try:
            need = self._loader.need(alias, held, parked.size, parked.settings.isolated)
            if (
                held.key == parked.digest and need.measured
            ):  # reading the copy costs more than knowing: there is no room
                self._space.make(need, agent_budget.Way.SPILL)
            self.serving[alias] = self._bring(self._loader.fetch(alias, held), agent_budget.Way.SPILL, False)
        except agent_registry.StoreError as error:
            self._note(alias, agent_table.Damaged(held.key, f"{held.version}: {error}"))
            return str(error)
        except (agent_check.RefusedError, OSError) as error:
            return str(error)
        self._space.settle(alias)
        self._note(alias, agent_table.Reloaded())
        return ""


def parked(package: agent_loader.Package) -> agent_loader.Serving:
    """A model that is not in memory."""
    held, manifest = package.held, dataclasses.replace(package.manifest, golden=())
    guard, size = agent_guard.Guard.parked(manifest), len(package.model)
    return agent_loader.Serving(guard, held.component, held.version, size, held.key, 0, package.settings)
