"""The local shadow service: the rules of core/shadow.py over the file of store/shadows.py.

In: requests by IPC (`request`, `names`) and on the local topics `$aws/things/T/shadow[/name/N]/{get,update,delete}`; what
the synchronisation writes (`apply`). Out: answers; `accepted`, `rejected`, `delta` and `documents` on the local topics, by
whatever way a change came; `on_change` of what the device's own clients changed. The file is used by one thread, so
requests take effect one after the other and the loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from nucleus.actors import broker, shadow_file
from nucleus.core import errors, rates, shadow, shadow_settings, shadow_sync
from nucleus.store import shadows as store
from nucleus.wire import jobs

NAME = "aws.greengrass.ShadowManager"
VERBS = ("get", "update", "delete")
WAITING = 256  # requests by local topics that wait for the disk; more are rejected
_THINGS_KEPT = 1024
_NEW = rates.Bucket(0, 0, 0)  # full when it is first used, for no rate is 0

Ref = shadow_settings.Ref
T = TypeVar("T")


class Log(Protocol):
    """The part of host.logs.Log that is used here."""

    def debug(self, event: str, /, **fields: Any) -> None: ...
    def info(self, event: str, /, **fields: Any) -> None: ...
    def warning(self, event: str, /, **fields: Any) -> None: ...
    def error(self, event: str, /, **fields: Any) -> None: ...


class Codec(Protocol):
    """A message of the local broker and its payload."""

    def encode(self, topic: str, payload: bytes, /) -> bytes: ...
    def decode(self, message: bytes, /) -> bytes: ...


class Rejected(Exception):  # noqa: N818  an answer to the caller, not an error of ours
    """A request that was not carried out, with a code of HTTP."""

    def __init__(self, refused: shadow.Refused) -> None:
        super().__init__(refused.message)
        self.code = refused.code
        self.message = refused.message


class Shadows:
    """`settings` gives None while the component is not installed."""

    def __init__(
        self,
        file: shadow_file.ShadowFile,
        local: broker.Broker,
        codec: Codec,
        *,
        settings: Callable[[], shadow_settings.Settings | None],
        log: Log,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._broker = local
        self._codec = codec
        self._settings = settings
        self._log = log
        self._clock = clock
        self._steady = steady
        self._total = _NEW
        self._by_thing: dict[str, rates.Bucket] = {}
        self._waiting: asyncio.Queue[tuple[str, Ref, bytes]] = asyncio.Queue(WAITING)
        self._listeners: list[Callable[[Ref], None]] = []

    def on_change(self, listener: Callable[[Ref], None]) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        """Serves the local topics until cancelled."""
        cancels = [
            self._broker.subscribe(f"$aws/things/+/shadow{middle}/{verb}", broker.OTHERS, NAME, self._arrived)
            for middle in ("", "/name/+")
            for verb in VERBS
        ]
        try:
            while True:
                verb, (thing, name), payload = await self._waiting.get()
                try:
                    await self.request(verb, thing, name, payload)
                except Rejected as rejected:
                    self._log.debug("shadow.rejected", thing=thing, shadow=name, verb=verb, why=rejected.message)
        finally:
            for cancel in cancels:
                cancel()
            self._file.close()

    # ---- requests --------------------------------------------------------------------------------------------------

    async def request(self, verb: str, thing: str, name: str, payload: bytes = b"") -> bytes:
        """Gets, updates or deletes a shadow; returns the document of `accepted`. Raises Rejected."""
        token = shadow.client_token(payload)
        topic = f"{jobs.shadow(thing, name)}/{verb}"
        try:
            settings = self._admit(thing, name)
            return await self._carry_out(verb, (thing, name), payload, token, settings)
        except Rejected as rejected:
            refused = shadow.Refused(rejected.code, rejected.message)
            if self._settings() is not None:
                self._publish(f"{topic}/rejected", shadow.rejection(refused, token, self._now_ms()))
            raise

    async def names(self, thing: str, after: str, limit: int) -> list[str]:
        """Names of a thing's named shadows behind `after`. Raises Rejected."""
        self._admit(thing, "")
        return await self.call(lambda held: held.names(thing, after, limit))

    async def _carry_out(
        self, verb: str, ref: Ref, payload: bytes, token: str | None, settings: shadow_settings.Settings
    ) -> bytes:
        topic, now_ms = f"{jobs.shadow(*ref)}/{verb}", self._now_ms()
        if verb == "get":
            held = await self.call(lambda held: held.find(*ref))
            if held is None or held.deleted:
                raise Rejected(_unknown(ref))
            answer = shadow.whole(held, token, now_ms)
            self._publish(f"{topic}/accepted", answer)
            return answer
        if verb == "delete":
            version = await self.call(lambda held: _delete(held, ref, now_ms))
            self._tell(ref)
            return self._deleted(ref, version, token)
        request = shadow.read(payload)
        if isinstance(request, shadow.Refused):
            raise Rejected(request)
        before, after = await self.call(lambda held: _update(held, ref, request, now_ms, settings.size_bytes))
        self._tell(ref)
        return self._updated(ref, request, before, after)

    def _arrived(self, topic: str, message: bytes) -> None:
        """A request by a local topic."""
        if self._settings() is None:
            return
        _, _, thing, _, *rest = topic.split("/")
        ref, verb = (thing, rest[1] if len(rest) > 1 else ""), rest[-1]
        payload = self._codec.decode(message)
        try:
            self._waiting.put_nowait((verb, ref, payload))
        except asyncio.QueueFull:
            refused = shadow.Refused(429, "Too many requests: the local shadow service is behind")
            rejection = shadow.rejection(refused, shadow.client_token(payload), self._now_ms())
            self._publish(f"{topic}/rejected", rejection)

    def _admit(self, thing: str, name: str) -> shadow_settings.Settings:
        settings = self._settings()
        if settings is None:
            why = f"there is no local shadow service: deploy {NAME}, which is built in"
            raise Rejected(shadow.Refused(503, why))
        fault = shadow.fault_of(thing, name)
        if fault:
            raise Rejected(shadow.Refused(400, f"cannot find the shadow: {fault}"))
        if len(self._by_thing) > _THINGS_KEPT:
            self._by_thing.clear()
        # The thing first: one that asks too often must not use up what is there for all.
        self._by_thing[thing] = self._take(self._by_thing.get(thing, _NEW), settings.thing_rate, f"of {thing}")
        self._total = self._take(self._total, settings.total_rate, "of all things")
        return settings

    def _take(self, bucket: rates.Bucket, rate: float, whose: str) -> rates.Bucket:
        """The bucket afterwards; one of another rate, because the configuration changed, begins full."""
        now_s = self._steady()
        bucket, wait_s = rates.take(bucket if bucket.rate == rate else rates.full(rate, now_s), now_s)
        if wait_s:
            raise Rejected(shadow.Refused(429, f"Too many requests: more than {rate:g} per second {whose}"))
        return bucket

    # ---- the synchronisation -----------------------------------------------------------------------------------------

    async def look(self, ref: Ref) -> tuple[shadow.Shadow | None, shadow_sync.Synced]:
        """A shadow, also a deleted one, and what is remembered of its synchronisation. Raises Rejected."""
        return await self.call(lambda held: (held.find(*ref), held.synced(*ref)))

    async def remember(self, ref: Ref, synced: shadow_sync.Synced) -> None:
        def save(held: store.ShadowStore) -> None:
            with held.writing():
                held.save_synced(*ref, synced)

        await self.call(save)

    async def apply(self, ref: Ref, change: shadow_sync.Change, version: int, synced: shadow_sync.Synced) -> bool:
        """Carries out a change of the synchronisation if the shadow still has `version`, and remembers `synced` with it.

        False: a client of the device was faster, nothing was done. The size limit of clients does not hold for the cloud.
        """
        now_ms = self._now_ms()
        request = shadow.Request(change.patch or {}, version)
        try:
            before, after = await self.call(lambda held: _apply(held, ref, request, change, now_ms, synced))
        except Rejected as rejected:
            if rejected.code == 409:
                return False
            raise
        if change.patch is None:
            self._deleted(ref, before.version, None)
        else:
            self._updated(ref, request, before, after)
        return True

    # ---- the file and the broker ---------------------------------------------------------------------------------------

    async def call(self, work: Callable[[store.ShadowStore], T]) -> T:
        try:
            return await self._file.call(work)
        except errors.NucleusError as error:
            raise Rejected(shadow.Refused(500, error.detail)) from error

    def _updated(self, ref: Ref, request: shadow.Request, before: shadow.Shadow, after: shadow.Shadow) -> bytes:
        topic, token = f"{jobs.shadow(*ref)}/update", request.client_token
        answer = shadow.accepted(request, after)
        self._publish(f"{topic}/accepted", answer)
        self._publish(f"{topic}/documents", shadow.documents(before, after, token))
        difference = shadow.difference(after, token)
        if difference is not None:
            self._publish(f"{topic}/delta", difference)
        return answer

    def _deleted(self, ref: Ref, version: int, token: str | None) -> bytes:
        answer = shadow.gone(version, token, self._now_ms())
        self._publish(f"{jobs.shadow(*ref)}/delete/accepted", answer)
        return answer

    def _publish(self, topic: str, payload: bytes) -> None:
        self._broker.publish(topic, self._codec.encode(topic, payload), NAME)

    def _tell(self, ref: Ref) -> None:
        for listener in self._listeners:
            listener(ref)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _unknown(ref: Ref) -> shadow.Refused:
    return shadow.Refused(404, f"No shadow exists with name: '{ref[1] or ref[0]}'")


def _update(
    held: store.ShadowStore, ref: Ref, request: shadow.Request, now_ms: int, limit_bytes: int
) -> tuple[shadow.Shadow, shadow.Shadow]:
    before = held.find(*ref) or shadow.Shadow()
    after = shadow.update(before, request, now_ms, limit_bytes=limit_bytes)
    if isinstance(after, shadow.Refused):
        raise Rejected(after)
    with held.writing():
        held.save(*ref, after)
    return before, after


def _delete(held: store.ShadowStore, ref: Ref, now_ms: int) -> int:
    before = held.find(*ref)
    if before is None or before.deleted:
        raise Rejected(_unknown(ref))
    with held.writing():
        held.save(*ref, shadow.tombstone(before, now_ms))
    return before.version


def _apply(
    held: store.ShadowStore,
    ref: Ref,
    request: shadow.Request,
    change: shadow_sync.Change,
    now_ms: int,
    synced: shadow_sync.Synced,
) -> tuple[shadow.Shadow, shadow.Shadow]:
    before = held.find(*ref) or shadow.Shadow()
    after = shadow.update(before, request, now_ms, limit_bytes=shadow.LARGEST_BYTES)
    if isinstance(after, shadow.Refused):
        raise Rejected(after)
    if change.patch is None:
        after = shadow.tombstone(before, now_ms)
    with held.writing():
        held.save(*ref, after)
        held.save_synced(*ref, shadow_sync.Synced(synced.base, after.version, synced.cloud_version))
    return before, after
