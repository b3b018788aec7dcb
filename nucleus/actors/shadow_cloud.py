"""The cloud's shadows over MQTT: a question, and the answer with its client token (iotdoc device-shadow-mqtt.md).

In: `follow`, `get`, `update`, `delete`. Out: their results, and `hint` when somebody else changed a shadow. Questions go
past the spool: an update or a deletion that is sent after months would undo what was done since. Each waits a bounded time,
and not beyond the connection; at most so many per second go out as the configuration allows.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from nucleus.core import errors, rates, shadow, shadow_settings, shadow_sync
from nucleus.wire import jobs

ANSWER_S = 20.0
_TRY_LATER = frozenset({429, 500, 503})
_FORBIDDEN = 0x87

Ref = shadow_settings.Ref


class Incoming(Protocol):
    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


class Connection(Protocol):
    """The part of uplink.mqtt.Connection that is used here."""

    @property
    def connected(self) -> bool: ...
    async def publish_now(self, topic: str, payload: bytes, /) -> int: ...
    async def subscribe(self, filter_: str, qos: int, deliver: Callable[[Any], None], /) -> Callable[[], None]: ...
    def on_status(self, callback: Callable[[bool], None], /) -> Callable[[], None]: ...


class Unavailable(Exception):  # noqa: N818  an answer to the caller, not an error of ours
    """No answer now: not connected, too late, too many requests. Later it may be another."""


class Refused(Exception):  # noqa: N818
    """The cloud's answer is no, with a code of HTTP; the same request gets the same answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class _Answer(Struct, rename="camel"):
    client_token: str | None = None
    state: dict[str, Any] | None = None
    version: int = 0
    code: int = 0
    message: str = ""


class CloudShadows:
    """`rate` gives the questions per second that may go out now; `hint` hears of changes that we did not make."""

    def __init__(
        self,
        connection: Connection,
        hint: Callable[[Ref], None],
        *,
        rate: Callable[[], float],
        answer_s: float = ANSWER_S,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._hint = hint
        self._rate = rate
        self._answer_s = answer_s
        self._steady = steady
        self._bucket = rates.Bucket(0, 0, 0)
        self._waiting: dict[str, asyncio.Future[_Answer | Exception]] = {}
        self._followed: dict[Ref, list[Callable[[], None]]] = {}
        connection.on_status(self._status)

    async def follow(self, ref: Ref) -> None:
        """Hears the shadow's answers and changes from now on. Raises NucleusError when the broker refuses."""
        if ref in self._followed:
            return
        cancels = self._followed[ref] = []
        try:
            for word in ("accepted", "rejected"):
                filter_ = f"{jobs.shadow(*ref)}/+/{word}"
                cancels.append(await self._connection.subscribe(filter_, 1, lambda one: self._arrived(ref, one)))
        except BaseException:
            self.forget(ref)
            raise

    def forget(self, ref: Ref) -> None:
        for cancel in self._followed.pop(ref, []):
            cancel()

    async def get(self, ref: Ref) -> shadow_sync.Side | None:
        """The cloud's shadow. Raises Unavailable or Refused, as all questions."""
        try:
            answer = await self._ask(ref, "get", {})
        except Refused as refused:
            if refused.code == 404:
                return None
            raise
        state = answer.state or {}
        sections = {name: state[name] for name in shadow.SECTIONS if isinstance(state.get(name), dict) and state[name]}
        return shadow_sync.Side(sections, answer.version)

    async def update(self, ref: Ref, patch: shadow_sync.State, version: int | None) -> int:
        """Merges a patch into the version named, None for a shadow that is not there; returns the new version."""
        body: dict[str, Any] = {"state": patch}
        if version is not None:
            body["version"] = version
        return (await self._ask(ref, "update", body)).version

    async def delete(self, ref: Ref) -> None:
        """Deletes it; one that is not there counts as deleted."""
        try:
            await self._ask(ref, "delete", {})
        except Refused as refused:
            if refused.code != 404:
                raise

    async def _ask(self, ref: Ref, verb: str, body: dict[str, Any]) -> _Answer:
        await self._permit()
        token = uuid.uuid4().hex
        topic = f"{jobs.shadow(*ref)}/{verb}"
        waiting: asyncio.Future[_Answer | Exception] = asyncio.get_running_loop().create_future()
        self._waiting[token] = waiting
        try:
            async with asyncio.timeout(self._answer_s):
                reason = await self._connection.publish_now(topic, msgspec.json.encode(body | {"clientToken": token}))
                if reason >= 0x80:
                    raise _no(reason, topic)
                answer = await waiting
        except TimeoutError:
            raise Unavailable(f"no answer to {topic} within {self._answer_s:g} s") from None
        except errors.NucleusError as error:
            raise Unavailable(error.detail) from error
        finally:
            del self._waiting[token]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _permit(self) -> None:
        while True:
            rate, now_s = self._rate(), self._steady()
            known = self._bucket if self._bucket.rate == rate else rates.full(rate, now_s)
            self._bucket, wait_s = rates.take(known, now_s)
            if not wait_s:
                return
            await asyncio.sleep(wait_s)

    def _arrived(self, ref: Ref, message: Incoming) -> None:
        *_, verb, word = message.topic.split("/")
        try:
            answer = msgspec.json.decode(message.payload, type=_Answer)
        except (msgspec.MsgspecError, RecursionError):
            answer = _Answer()  # whatever it is, something happened
        waiting = self._waiting.get(answer.client_token or "")
        if waiting is None:
            if word == "accepted" and verb != "get":
                self._hint(ref)
        elif not waiting.done():
            waiting.set_result(answer if word == "accepted" else _refusal(answer))

    def _status(self, up: bool) -> None:
        if up:
            return
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Unavailable("the connection was lost"))


def _refusal(answer: _Answer) -> Exception:
    if answer.code in _TRY_LATER:
        return Unavailable(f"{answer.message} ({answer.code})")
    return Refused(answer.code, answer.message)


def _no(reason: int, topic: str) -> Exception:
    """A PUBACK that is no acknowledgement."""
    if reason == _FORBIDDEN:
        return Refused(403, f"the device's policy does not allow to publish to {topic}")
    return Unavailable(f"the broker did not take {topic}: reason {reason:#04x}")
