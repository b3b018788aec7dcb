"""Asks running components whether they accept their new configuration before it is committed (spec/nucleus.md 5.11).

What flows in: subscriptions and reports of components (ipc/updates.py), the proposals of a deployment. What flows out: one
event to each component concerned, and the return of `validate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nucleus.actors import consent
from nucleus.core import errors, validation


class Validation:
    """Who wants to validate configurations, and the open question if there is one."""

    def __init__(self, log: consent.Log) -> None:
        self._log = log
        self._streams: dict[str, list[consent.Deliver]] = {}
        self._question = ""  # id of the deployment that asks
        self._asked: frozenset[str] = frozenset()
        self._answers: dict[str, validation.Answer] = {}
        self._news = asyncio.Event()

    def subscribe(self, component: str, deliver: consent.Deliver) -> consent.Cancel:
        """Delivers events until the returned function is called (twice is harmless)."""
        streams = self._streams.setdefault(component, [])
        streams.append(deliver)
        open_ = [deliver]

        def cancel() -> None:
            if not open_:
                return
            streams.remove(open_.pop())
            if not streams and self._streams.get(component) is streams:
                del self._streams[component]
                self._news.set()

        return cancel

    def listening(self) -> frozenset[str]:
        return frozenset(self._streams)

    def report(self, component: str, deployment_id: str, accepted: bool, message: str) -> None:
        """A component's answer. Raises consent.NotAsked when nobody waits for it (any more)."""
        if not self._question or deployment_id != self._question or component not in self._asked:
            raise consent.NotAsked
        self._log.info(
            "validation.answered", component=component, deployment=deployment_id, accepted=accepted, message=message
        )
        self._answers[component] = validation.Answer(accepted, message)
        self._news.set()

    async def validate(
        self,
        deployment_id: str,
        proposals: Mapping[str, dict[str, Any]],
        timeout_s: float,
        say: Callable[[str], None],
        *,
        silence_fails: bool = False,
    ) -> None:
        """Returns when the configuration may be given. Raises NucleusError COMPONENT_CONFIGURATION_NOT_VALID."""
        self._question, self._asked, self._answers = deployment_id, frozenset(proposals), {}
        self._news.clear()
        try:
            for name, values in proposals.items():
                event = {"configuration": values, "deploymentId": deployment_id}
                for deliver in list(self._streams.get(name, ())):
                    deliver({"validateConfigurationUpdateEvent": event})
            await self._answered(timeout_s, say)
        finally:
            self._question = ""
        silent = sorted(self._asked - self._answers.keys())
        if silent:
            self._log.warning("validation.not_answered", components=", ".join(silent), after_s=timeout_s)
        why = validation.objection(self._asked, self._answers, silence_fails=silence_fails, timeout_s=timeout_s)
        if why:
            what = f"cannot change configuration for deployment {deployment_id}: {why}; nothing was changed"
            raise errors.NucleusError("COMPONENT_CONFIGURATION_NOT_VALID", what)

    async def _answered(self, timeout_s: float, say: Callable[[str], None]) -> None:
        """Waits until all that can still answer have answered, one has refused, or the time is over."""
        until = consent.wall_time(timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                while missing := sorted((self._asked & self._streams.keys()) - self._answers.keys()):
                    if any(not one.accepted for one in self._answers.values()):
                        return
                    say(f"waiting for {', '.join(missing)} to validate its new configuration until {until}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return
