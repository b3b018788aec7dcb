"""Keeps the configured shadows the same here and in the cloud.

In: changes of the device's clients (`changed`), of the cloud (`hinted`), connections, the configuration. Out: what
core/shadow_sync.py plans, carried out on both sides. Both are only hints that a shadow is worth a look: nothing is queued
but which shadows, so months offline cost nothing, and what was seen last is on the disk with the shadow. A question that
fails is asked again later; a refusal waits for the next change.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from msgspec import Struct

from nucleus.actors import shadow_cloud, shadows
from nucleus.core import errors, shadow_settings, shadow_sync

AT_ONCE = 8  # shadows that are worked on at the same time
ATTEMPTS = 6  # to meet a shadow that somebody else keeps changing, before a pause

Ref = shadow_settings.Ref
Direction = shadow_sync.Direction


class _Watched(Struct):
    """`sure`: the cloud's shadow is as remembered, nobody has said otherwise on this connection."""

    dirty: bool = True
    sure: bool = False
    busy: bool = False
    failures: int = 0
    not_before_s: float = 0.0


class ShadowSync:
    """`settings` gives None while the component is not installed; `wake` tells that it may give something else."""

    def __init__(
        self,
        local: shadows.Shadows,
        connection: shadow_cloud.Connection,
        *,
        settings: Callable[[], shadow_settings.Settings | None],
        log: shadows.Log,
        answer_s: float = shadow_cloud.ANSWER_S,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._connection = connection
        self._cloud = shadow_cloud.CloudShadows(connection, self.hinted, rate=self._rate, answer_s=answer_s)
        self._settings = settings
        self._log = log
        self._steady = steady
        self._used: shadow_settings.Settings | None = None
        self._watched: dict[Ref, _Watched] = {}
        self._round: set[Ref] = set()
        self._last_round_s: float | None = None
        self._wake = asyncio.Event()
        local.on_change(self.changed)

    def wake(self) -> None:
        self._wake.set()

    def changed(self, ref: Ref) -> None:
        """A client of the device changed a shadow."""
        if self._used is not None and self._used.direction is not Direction.DOWN:
            self._look_at(ref, sure=True)

    def hinted(self, ref: Ref) -> None:
        """Somebody else changed the cloud's shadow."""
        one = self._watched.get(ref)
        if one is not None:
            one.sure = False
        if self._used is not None and self._used.direction is not Direction.UP:
            self._look_at(ref, sure=False)

    def connected(self) -> None:
        """What happened in the cloud meanwhile is unknown."""
        for one in self._watched.values():
            one.dirty, one.sure, one.failures, one.not_before_s = True, False, 0, 0.0
        self._wake.set()

    async def run(self) -> None:
        """Synchronises until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                self._adopt()
                for ref in self._due():
                    self._round.discard(ref)
                    self._watched[ref].busy, self._watched[ref].dirty = True, False
                    group.create_task(self._synchronise(ref, self._watched[ref]))
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    # ---- what is to be done, and when --------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Takes over a changed configuration."""
        settings = self._settings()
        if settings == self._used:
            return
        before, self._used = self._used, settings
        wanted = settings.synchronized if settings is not None else frozenset()
        for ref in self._watched.keys() - wanted:
            del self._watched[ref]
            self._cloud.forget(ref)
        for ref in wanted - self._watched.keys():
            self._watched[ref] = _Watched()
        if before is None or settings is None or before.direction is not settings.direction:
            for one in self._watched.values():
                one.dirty = True
        if before is None or settings is None or before.strategy != settings.strategy:
            self._last_round_s = None

    def _due(self) -> list[Ref]:
        if self._used is None or not self._connection.connected:
            return []
        now_s = self._steady()
        if shadow_sync.next_round_s(self._used.strategy.periodic_s, self._last_round_s, now_s) <= now_s:
            self._last_round_s = now_s
            self._round = {ref for ref, one in self._watched.items() if one.dirty}
        self._round &= self._watched.keys()
        free = AT_ONCE - sum(one.busy for one in self._watched.values())
        ready = [ref for ref in sorted(self._round) if self._is_waiting(ref, self._watched[ref])]
        ready = [ref for ref in ready if self._watched[ref].not_before_s <= now_s]
        return ready[: max(free, 0)]

    def _is_waiting(self, ref: Ref, one: _Watched) -> bool:
        """Whether only its time must come; in real time everything changed belongs to the round."""
        assert self._used is not None
        return one.dirty and not one.busy and (ref in self._round or self._used.strategy.periodic_s is None)

    def _pause_s(self) -> float | None:
        """Until something is due by itself; None: only an event can make it so."""
        if self._used is None or not self._connection.connected:
            return None
        if sum(one.busy for one in self._watched.values()) >= AT_ONCE:
            return None
        now_s, periodic_s = self._steady(), self._used.strategy.periodic_s
        times = [one.not_before_s for ref, one in self._watched.items() if self._is_waiting(ref, one)]
        if periodic_s is not None:
            times.append(shadow_sync.next_round_s(periodic_s, self._last_round_s, now_s))
        return max(min(times) - now_s, 0.0) if times else None

    def _look_at(self, ref: Ref, *, sure: bool) -> None:
        one = self._watched.get(ref)
        if one is None:
            return
        one.dirty = True
        one.sure = one.sure and sure
        self._wake.set()

    # ---- one shadow --------------------------------------------------------------------------------------------------

    async def _synchronise(self, ref: Ref, one: _Watched) -> None:
        try:
            await self._cloud.follow(ref)
            await self._settle(ref, one)
            one.failures = 0
        except shadow_cloud.Unavailable as error:
            self._again(ref, one, str(error))
        except (shadow_cloud.Refused, shadows.Rejected, errors.NucleusError) as error:
            one.sure = False
            self._log.error("shadow.not_synchronised", thing=ref[0], shadow=ref[1], why=str(error))
        finally:
            one.busy = False
            self._wake.set()

    def _again(self, ref: Ref, one: _Watched, why: str) -> None:
        one.dirty, one.sure = True, False
        self._round.add(ref)
        pause_s = shadow_sync.backoff_s(one.failures, random.random())  # noqa: S311  jitter, not a secret
        one.failures += 1
        one.not_before_s = self._steady() + pause_s
        self._log.warning("shadow.synchronised_later", thing=ref[0], shadow=ref[1], why=why, pause_s=round(pause_s, 1))

    async def _settle(self, ref: Ref, one: _Watched) -> None:
        """Carries out plans until there is nothing left to do."""
        for _ in range(ATTEMPTS):
            if await self._attempt(ref, one) and one.sure:
                return
        raise shadow_cloud.Unavailable("it is changed all the time")

    async def _attempt(self, ref: Ref, one: _Watched) -> bool:
        """One plan; False if one of the sides changed meanwhile."""
        settings = self._used
        if settings is None or self._watched.get(ref) is not one:
            one.sure = True
            return True
        held, synced = await self._local.look(ref)
        there = shadow_sync.Side(synced.base, synced.cloud_version) if synced.base is not None else None
        if not one.sure:
            one.sure = True  # before the question: a hint that comes behind the answer must not be lost
            there = await self._cloud.get(ref)
        version = held.version if held is not None else 0
        here = shadow_sync.Side(held.state, version) if held is not None and not held.deleted else None
        plan = shadow_sync.plan(here, there, synced, settings.direction)
        cloud_version = there.version if there is not None else synced.cloud_version
        if plan.cloud is not None:
            changed = await self._change_cloud(ref, one, plan.cloud, there)
            if changed is None:
                return False
            cloud_version = changed
        now = shadow_sync.Synced(plan.state, version, cloud_version)
        if plan.local is not None:
            done = await self._local.apply(ref, plan.local, version, now)
            one.sure = one.sure and done  # what the cloud has now is not remembered then
            return done
        if now != synced:
            await self._local.remember(ref, now)
        return True

    async def _change_cloud(
        self, ref: Ref, one: _Watched, change: shadow_sync.Change, there: shadow_sync.Side | None
    ) -> int | None:
        """The cloud's version afterwards; None if somebody was faster."""
        if change.patch is None:
            await self._cloud.delete(ref)
            return there.version if there is not None else 0
        try:
            version = await self._cloud.update(ref, change.patch, there.version if there is not None else None)
        except shadow_cloud.Refused as refused:
            one.sure = False
            if refused.code != 409:
                raise
            return None
        if there is None:
            one.sure = False  # an update without a version may have met a shadow that was made meanwhile
        return version

    def _rate(self) -> float:
        return self._used.outbound_rate if self._used is not None else 1.0
