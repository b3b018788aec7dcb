"""Asks the components that listen before they are updated, and tells them when it is over (spec/nucleus.md 5.10).

What flows in: subscriptions and answers of components (ipc/updates.py), the question of a deployment. What flows out: pre
and post events, and the return of `ask`. At most one question is open, because deployments are carried out one at a time.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Any, Protocol

from nucleus.core import consent

Event = dict[str, Any]
Deliver = Callable[[Event], None]
Cancel = Callable[[], None]


class Log(Protocol):
    """The part of host.logs.Log that is used here."""

    def info(self, event: str, /, **fields: Any) -> None: ...
    def warning(self, event: str, /, **fields: Any) -> None: ...


class NotSubscribed(Exception):  # noqa: N818  an answer to the caller, not an error of ours
    """The component does not listen to updates."""


class NotAsked(Exception):  # noqa: N818
    """Nobody waits for an answer about that deployment (any more)."""


class Consent:
    """Who listens to component updates, and the open question if there is one."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._streams: dict[str, list[Deliver]] = {}
        self._question = ""  # id of the deployment that asks
        self._event: Event = {}
        self._round = consent.Round(frozenset(), 0.0)
        self._news = asyncio.Event()

    # ---- what components ask -----------------------------------------------------------------------------------------

    def subscribe(self, component: str, deliver: Deliver) -> Cancel:
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
                self._change(consent.leave(self._round, component))

        if self._question:
            self._change(consent.join(self._round, component))
            deliver(self._event)
        return cancel

    def defer(self, component: str, deployment_id: str, recheck_after_ms: int | None, message: str) -> None:
        """A component's answer; None says nothing, as if there had been no answer. Raises NotSubscribed, NotAsked."""
        if component not in self._streams:
            raise NotSubscribed
        if not self._question or deployment_id != self._question:
            raise NotAsked
        fields = {"component": component, "deployment": deployment_id, "message": message}
        if recheck_after_ms is None:
            self._log.warning("consent.answer_ignored", why="recheckAfterMs is missing", **fields)
            return
        self._log.info("consent.answered", recheck_after_ms=recheck_after_ms, **fields)
        self._change(consent.answer(self._round, component, recheck_after_ms, asyncio.get_running_loop().time()))

    # ---- what a deployment asks --------------------------------------------------------------------------------------

    async def ask(
        self, deployment_id: str, timeout_s: float, say: Callable[[str], None], *, restarting: bool = False
    ) -> None:
        """Returns when nobody objects any more: as long as components defer, so only cancellation bounds it."""
        event = {"preUpdateEvent": {"deploymentId": deployment_id, "isGgcRestarting": restarting}}
        self._question, self._event = deployment_id, event
        try:
            while await self._is_deferred(timeout_s, say):
                self._log.info("consent.asking_again", deployment=deployment_id)
        finally:
            self._question = ""

    def over(self, deployment_id: str) -> None:
        """Tells every listener that the update has ended, or will not come."""
        self._tell({"postUpdateEvent": {"deploymentId": deployment_id}})

    async def _is_deferred(self, timeout_s: float, say: Callable[[str], None]) -> bool:
        """Asks all listeners once and waits for the outcome; True: after a deferral, so ask again."""
        self._round = consent.Round(frozenset(self._streams), asyncio.get_running_loop().time() + timeout_s)
        self._tell(self._event)
        while True:
            self._news.clear()
            now = asyncio.get_running_loop().time()
            verdict = consent.judge(self._round, now)
            if isinstance(verdict, consent.Agreed | consent.AskAgain):
                return isinstance(verdict, consent.AskAgain)
            say(f"waiting for consent of {', '.join(verdict.components)} until {wall_time(verdict.until - now)}")
            try:
                async with asyncio.timeout(verdict.until - now):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _tell(self, event: Event) -> None:
        for deliver in [one for streams in list(self._streams.values()) for one in list(streams)]:
            deliver(event)

    def _change(self, current: consent.Round) -> None:
        self._round = current
        self._news.set()


def wall_time(in_s: float) -> str:
    """The moment in so many seconds, for people."""
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=in_s)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
