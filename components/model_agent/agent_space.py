"""The models in memory: what they take together, who has to go for another, and who gives back what it can do without.

Everything here is done under the lock of agent_room.py, which moves models in and out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import agent_budget
import agent_check
import agent_engine
import agent_growth
import agent_guard
import agent_loader
import agent_table

ADVICE = "raise the agent's memoryBytes, unload something, or let the model swap by replace or spill"
EVICT_S = 2.0  # requests under way get this long before their model leaves
SETTLE_S = 1.0  # a model that just came back stays: two that do not fit together take turns, and both answer


class SettlingError(agent_check.RefusedError):
    """There is no room before a model that just came back may go again, at `until` (time.monotonic())."""

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message, "RESOURCE_EXHAUSTED")
        self.until = until


class Space:
    """What is where, by alias; `note(alias, event)` records an eviction in the table."""

    def __init__(self, budget_bytes: int, loader: agent_loader.Loader, note: Callable[[str, Any], Any]) -> None:
        self.budget_bytes = budget_bytes
        self.serving: dict[str, agent_loader.Serving] = {}
        self.candidates: dict[str, agent_loader.Serving] = {}
        self.arriving: dict[str, agent_loader.Serving] = {}
        self.leaving: list[agent_loader.Serving] = []
        self._loader = loader
        self._note = note
        self._settled_at: dict[str, float] = {}

    def settle(self, alias: str) -> None:
        """It just came back."""
        self._settled_at[alias] = time.monotonic() + SETTLE_S

    def need(self, package: agent_loader.Package) -> agent_budget.Need:
        """What a model is going to take, as far as is known."""
        return self._loader.need(package.alias, package.held, len(package.model), package.settings.isolated)

    def measured_need(
        self, package: agent_loader.Package, way: agent_budget.Way, beside: agent_budget.Need | None = None
    ) -> agent_budget.Need:
        """The same; really measured where only that can tell whether it fits. Raises agent_check.RefusedError."""
        need = self.need(package)
        least = agent_budget.least(len(package.model), package.settings.isolated)
        if need.measured or least >= need.memory_bytes or self._fits(need, way, beside):
            return need
        fits = self._fits(dataclasses.replace(need, memory_bytes=least), way, beside)
        return self._loader.measure(package) if fits else need

    def check_both(self, serving: agent_budget.Need, need: agent_budget.Need, way: agent_budget.Way) -> None:
        """Raises agent_check.RefusedError unless what serves can come back and there is room for another beside it."""
        now = time.monotonic()
        until = self._settled(need, way, now, serving)
        decisions = self._decide_both(serving, need, way, now if until else 0.0)
        for each, decision in zip((serving, need), decisions, strict=True):
            if decision.action is agent_budget.Action.REFUSE:
                raise self._refusal(each, decision, until)

    def make(self, need: agent_budget.Need, way: agent_budget.Way) -> agent_budget.Decision:
        """Evicts who has to go; raises agent_check.RefusedError where there is no room, SettlingError where there is none yet."""
        now = time.monotonic()
        decision = agent_budget.decide(self.budget_bytes, self._slots(need.alias, now), need, way)
        if decision.action is agent_budget.Action.REFUSE:
            raise self._refusal(need, decision, self._settled(need, way, now, None))
        for alias in decision.victims:
            victim = self.serving[alias]
            if not victim.model.drain(EVICT_S):
                raise busy(alias, EVICT_S)
            self._loader.free()
            victim.model.manifest = dataclasses.replace(victim.model.manifest, golden=())
            self._note(alias, agent_table.Evicted())
        if decision.action is agent_budget.Action.LOAD:
            self.relieve(need.memory_bytes)
        return decision

    def relieve(self, coming_bytes: int = 0) -> None:
        """Models give back what large requests made them keep, as far as there is no room for it beside what comes."""
        found = [each for each in self._all() if not each.model.gone]
        free = self._free(found, coming_bytes)
        for each in sorted(found, key=lambda one: -int(one.model.growth.grown_bytes)):
            kept = each.model.growth.grown_bytes
            if free >= 0 or kept < agent_budget.LEAST_BYTES:  # less is not worth that its requests become slower
                break
            with contextlib.suppress(agent_guard.GoneError, agent_check.InputError, agent_engine.NotReadyError):
                each.model.relieve()
                self._loader.remember(each)
                self._loader.free()
            free += kept - each.model.growth.grown_bytes
        for each in found:
            each.model.growth.allow(free)

    def _free(self, found: list[agent_loader.Serving], coming_bytes: int) -> int:
        if not self.budget_bytes:
            return agent_growth.UNBOUND
        return self.budget_bytes - coming_bytes - sum(each.memory_bytes for each in found)

    def _all(self) -> list[agent_loader.Serving]:
        return [*self.serving.values(), *self.candidates.values(), *self.arriving.values(), *self.leaving]

    def _slots(self, own: str, now: float) -> list[agent_budget.Slot]:
        """`now` 0.0: as if nobody had just come back."""
        slots = []
        for alias, each in self.serving.items():
            settling = alias != own and 0.0 < now < self._settled_at.get(alias, 0.0)
            safe = settling or alias in self.candidates or alias in self.arriving
            if not each.model.gone:
                slots.append(_slot(alias, each, safe))
        apart = [*self.candidates.items(), *self.arriving.items(), *((each.component, each) for each in self.leaving)]
        return slots + [_slot(alias, each, True) for alias, each in apart if not each.model.gone]

    def _fits(self, need: agent_budget.Need, way: agent_budget.Way, beside: agent_budget.Need | None) -> bool:
        """Whether there is or will soon be room."""
        if beside is None:
            decisions = [agent_budget.decide(self.budget_bytes, self._slots(need.alias, 0.0), need, way)]
        else:
            decisions = self._decide_both(beside, need, way, 0.0)
        return all(each.action is not agent_budget.Action.REFUSE for each in decisions)

    def _decide_both(
        self, serving: agent_budget.Need, need: agent_budget.Need, way: agent_budget.Way, now: float
    ) -> list[agent_budget.Decision]:
        """What serves comes back as for a request, then the other comes."""
        slots = self._slots(need.alias, now)
        back = agent_budget.decide(self.budget_bytes, slots, serving, agent_budget.Way.SPILL)
        left = [slot for slot in slots if slot.safe or slot.alias not in back.victims]
        left.append(
            agent_budget.Slot(serving.alias, serving.version, serving.memory_bytes, time.monotonic(), safe=True)
        )
        return [back, agent_budget.decide(self.budget_bytes, left, need, way)]

    def _settled(
        self, need: agent_budget.Need, way: agent_budget.Way, now: float, beside: agent_budget.Need | None
    ) -> float:
        """When there will be room because nobody has just come back any more; 0.0 for never."""
        last = max((at for alias, at in self._settled_at.items() if alias != need.alias and at > now), default=0.0)
        return last if last and self._fits(need, way, beside) else 0.0

    def _refusal(
        self, need: agent_budget.Need, decision: agent_budget.Decision, until: float = 0.0
    ) -> agent_check.RefusedError:
        message = f"no memory for {need.alias} {need.version}: {decision.figures}; {ADVICE}"
        return SettlingError(message, until) if until else agent_check.RefusedError(message, "RESOURCE_EXHAUSTED")


def _slot(alias: str, each: agent_loader.Serving, safe: bool) -> agent_budget.Slot:
    """What requests made it keep can be given back: it counts in `relieve` only."""
    model = each.model
    return agent_budget.Slot(alias, each.version, each.loaded_bytes, model.used_at, each.settings.pinned, safe)


def busy(alias: str, waited_s: float) -> agent_check.RefusedError:
    """The error where requests did not make room."""
    return agent_check.RefusedError(f"requests of {alias} did not end within {waited_s:.1f} s", "RESOURCE_EXHAUSTED")
