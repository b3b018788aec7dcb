"""Brings the supervisor's components to a target, watches what becomes of them, and removes what leaves.

Used on the way there and on the way back alike; what to do is `core/plan.py`, when it is done is `core/progress.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from nucleus.actors import supervisor
from nucleus.core import plan, progress
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, State
from nucleus.host import logs

REMOVAL_S = 180.0  # Shutdown 15 s, processes 5 s each, Uninstall 120 s


class Hands:
    """`say` is told, whenever it changes, what is waited for. `left` is a sentence on removals that were not waited for."""

    def __init__(
        self,
        running: supervisor.Supervisor,
        say: Callable[[str], None],
        log: logs.Log,
        removal_s: float = REMOVAL_S,
    ) -> None:
        self.left = ""
        self._removal_s = removal_s
        self._running = running
        self._say = say
        self._log = log

    def hand_over(self, target: Mapping[str, Component], *, excused: Collection[str] = ()) -> dict[str, int]:
        """Gives the supervisor every step of the way from what it has to `target`; removals are not part of it.

        `excused` were BROKEN before and are left alone on the way back (spec/nucleus.md 5.8).
        """
        running = self._running
        health = running.health()
        actual = {name: one for name in health if (one := running.component(name, staying=True)) is not None}
        broken = [name for name, one in health.items() if one.state is State.BROKEN and name not in excused]
        generations = {}
        for step in plan.plan(actual, target, broken=broken).steps:
            name = step.component.name
            if step.effect is Effect.KEEP and actual.get(name) == step.component:
                generations[name] = health[name].generation
                continue
            self._log.info("deployment.step", component=name, effect=step.effect.value, reason=step.reason)
            generations[name] = running.adopt(step.component, step.effect)
        return generations

    async def watch(self, expected: progress.Expectation) -> progress.Done | progress.Failed:
        """Until it is decided; the expectation's deadline bounds it."""
        watch: progress.Watch | None = None
        while True:
            seen = self._running.revision
            verdict = progress.judge(expected, self._running.health(), watch, time.monotonic())
            if not isinstance(verdict, progress.Waiting):
                return verdict
            watch = verdict.watch
            self._say(verdict.reason)
            try:
                async with asyncio.timeout(verdict.look_again_s):
                    await self._running.changed(seen)
            except TimeoutError:
                continue

    def said(self) -> str:
        """`left` to follow another sentence."""
        return self.left and f". {self.left}"

    async def remove(self, names: frozenset[str]) -> None:
        """Stops, uninstalls and forgets components, dependents first. After `removal_s` it is not waited for any more:
        the supervisor takes them out when they have ended, and `left` says so."""
        running = self._running
        for name in plan.plan({n: c for n in names if (c := running.component(n)) is not None}, {}).removals:
            self._log.info("deployment.removing", component=name.name, reason=name.reason)
            running.remove(name.name)
        try:
            async with asyncio.timeout(self._removal_s):
                while left := sorted(names & running.health().keys()):
                    self._say(f"removing {', '.join(left)}")
                    await running.changed(running.revision)
        except TimeoutError:
            stuck = ", ".join(sorted(names & running.health().keys()))
            self._log.error("deployment.removal_timed_out", components=stuck)
            self.left = (
                f"{stuck} had not ended {self._removal_s:g} s after it was told to (Shutdown and Uninstall may still run): "
                "it is taken out when it has"
            )
