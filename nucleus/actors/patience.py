"""Asking a cloud that may not answer now: again and again until the deployment's deadline, and never twice what it told.

The one retry loop of deployments. Answers are kept in the deployment's record, as versions: the recipes are in the store.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nucleus.core import errors, negotiate
from nucleus.store import components, deployments
from nucleus.uplink import dataplane

T = TypeVar("T")
Say = Callable[[str], None]
Keep = Callable[[deployments.Record], None]

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
FORGET_S = 86_400.0


def answered(record: deployments.Record, store: components.ComponentStore) -> dict[negotiate.Ask, negotiate.Candidate]:
    """What the cloud has told for this deployment before the nucleus was restarted; a recipe that is gone is asked for."""
    found = {}
    for one in record.answers:
        with contextlib.suppress(errors.NucleusError, OSError):
            candidate = store.load(one.name, one.version)
            if candidate is not None:
                found[negotiate.Ask(one.name, one.requirements)] = candidate
    return found


class Waits:
    """Of all deployments: whose questions are unanswered now, and until when (monotonic) each may ask, overtaken or not."""

    def __init__(self) -> None:
        self.unanswered: collections.Counter[str] = collections.Counter()
        self._until: dict[tuple[str, int], float] = {}

    def until(self, record: deployments.Record) -> float:
        if not record.document.deadline_s:
            return float("inf")
        now = time.monotonic()
        self._until = {one: at for one, at in self._until.items() if at > now - FORGET_S}
        return self._until.setdefault((record.id, record.number), now + record.document.deadline_s)


class Patience:
    """The one retry loop of deployments: exponential with jitter, until the deadline of the document."""

    def __init__(
        self,
        record: deployments.Record,
        say: Say,
        cancelled: asyncio.Event,
        local_once_s: float,
        keep: Keep | None = None,
        waits: Waits | None = None,
    ) -> None:
        self._once_s = local_once_s if record.source == deployments.LOCAL else None
        self._say = say
        self._cancelled = cancelled
        self._record = record
        self._keep = keep
        self._waits = waits if waits is not None else Waits()
        self._until = self._waits.until(record)
        self._noted: list[deployments.Answer] = []

    def note(self, ask: negotiate.Ask, found: negotiate.Candidate) -> None:
        """The cloud has answered: nobody has to ask that again for this deployment."""
        self._noted.append(deployments.Answer(ask.name, ask.requirements, found.version))

    def keep_answers(self) -> None:
        """Makes what was noted durable. A disk that is full now only costs asking again."""
        if self._keep is None or not self._noted:
            return
        self._record.answers += tuple(self._noted)
        self._noted.clear()
        with contextlib.suppress(errors.NucleusError):
            self._keep(self._record)

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """One try where there is another way; short for a local deployment: a network may swallow everything."""
        try:
            async with asyncio.timeout(self._once_s):
                return await call()
        except TimeoutError:
            raise dataplane.Unavailable("NETWORK_ERROR", f"no answer of the cloud within {self._once_s} s") from None

    async def until_answered(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        pause = RETRY_FIRST_S
        try:
            return await call()
        except dataplane.Unavailable as error:
            self._waits.unanswered[self._record.id] += 1
            failed = error
        try:
            while True:
                if self._cancelled.is_set() or time.monotonic() + pause > self._until:
                    raise failed
                self._say(f"{what} ({failed.detail})")
                await self._pause(pause)
                pause = min(pause * 2, RETRY_MAX_S)
                try:
                    return await call()
                except dataplane.Unavailable as error:
                    failed = error
        finally:
            self._waits.unanswered[self._record.id] -= 1

    async def _pause(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s / 2 + random.uniform(0, at_most_s / 2)):  # noqa: S311  jitter
                await self._cancelled.wait()


class first_error:  # noqa: N801  reads as the function it is
    """A TaskGroup whose first NucleusError comes out as itself instead of in an ExceptionGroup."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, *details: object) -> None:
        try:
            await self._group.__aexit__(*details)  # type: ignore[arg-type]  # passed through unchanged
        except BaseExceptionGroup as failed:
            known, _ = failed.split(errors.NucleusError)
            if known is None:
                raise
            first: BaseException = known
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None
