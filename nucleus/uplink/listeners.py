"""The two sources of deployments: IoT Jobs in the Greengrass namespace, and the deployment shadow.

Notifications are hints (design.md 4.4): on start, on each reconnect and every 15 min ± jitter both are asked.
A source parses and hands on; it decides nothing but what is a duplicate delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from nucleus.core import document, errors, status
from nucleus.host import logs
from nucleus.store import deployments
from nucleus.uplink import mqtt
from nucleus.wire import jobs

ASK_AGAIN_S = 900.0  # ± a tenth
ANSWER_S = 30.0
FINAL = frozenset(  # rejections that will not change (spec/cloud.md 3.2)
    (
        "InvalidTopic",
        "InvalidJson",
        "InvalidRequest",
        "InvalidStateTransition",
        "ResourceNotFound",
        "VersionMismatch",
        "TerminalStateReached",
    )
)
OVER = frozenset(("InvalidStateTransition", "TerminalStateReached"))
BY_DEVICE = frozenset((status.SUCCEEDED, status.FAILED, status.REJECTED))  # ends that we have reported ourselves


class Inbox(Protocol):
    """What a source hands its finds to (the deployer)."""

    def submit(self, record: deployments.Record) -> None: ...

    def refuse(self, record: deployments.Record, error: errors.NucleusError) -> None: ...

    def cancel(self, source: str, carrier: str) -> None: ...

    def keep_jobs(self, listed: frozenset[str], *, before_ms: int = ...) -> None: ...


class JobSource:
    """Job executions of this thing. `run()` listens until cancelled."""

    def __init__(
        self,
        connection: mqtt.Connection,
        thing: str,
        inbox: Inbox,
        log: logs.Log,
        warm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._thing = thing
        self._inbox = inbox
        self._log = log
        self._warm = warm
        self._ask = asyncio.Event()
        self._answers: dict[str, asyncio.Future[tuple[bool, dict[str, Any]]]] = {}
        self._asked: str | None = ""  # token of the latest question for what is next

    async def run(self) -> None:
        get = jobs.next_get(self._thing)
        updates = jobs.update(self._thing, "+")
        self._connection.on_connected(self._reconnected)
        await self._connection.subscribe(f"{get}/accepted", 1, self._next)
        await self._connection.subscribe(jobs.notify(self._thing), 1, self._notified)
        await self._connection.subscribe(f"{updates}/accepted", 1, lambda message: self._answered(True, message))
        await self._connection.subscribe(f"{updates}/rejected", 1, lambda message: self._answered(False, message))
        await _ask_for_ever(self._connection, self._ask, lambda: self._question(get))

    async def _question(self, get: str) -> None:
        self._asked = uuid.uuid4().hex
        await self._publish(get, {"jobId": "$next", "thingName": self._thing, "clientToken": self._asked})
        if self._warm is not None:  # while the answer is on its way: a job will need the data plane
            await self._warm()

    async def report(self, record: deployments.Record, state: str, details: dict[str, str]) -> bool:
        """Updates the job execution; True when the service took it or will never take it. Waits at most ANSWER_S.

        Offline it is not even tried: what is not confirmed is reported after the next connection, once.
        """
        if not self._connection.connected:
            return False
        token = uuid.uuid4().hex
        answer: asyncio.Future[tuple[bool, dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        body = {"jobId": record.carrier, "thingName": self._thing, "status": state, "statusDetails": details}
        try:
            await self._publish(jobs.update(self._thing, record.carrier), body | {"clientToken": token})
            async with asyncio.timeout(ANSWER_S):
                accepted, payload = await answer
        except TimeoutError:
            return False
        finally:
            del self._answers[token]
        if accepted:
            return True
        code = str(payload.get("code"))
        self._log.warning("job.update_rejected", job=record.carrier, status=state, code=code)
        if state == "IN_PROGRESS" and code in OVER and _state(payload) not in BY_DEVICE:
            self._inbox.cancel(deployments.JOB, record.carrier)  # the service ended it: cancelled, removed, timed out
        return code in FINAL

    async def _publish(self, topic: str, body: dict[str, Any]) -> None:
        await self._connection.publish(topic, json.dumps(body).encode(), 1)

    def _reconnected(self) -> None:
        """Answers to what was asked before may be lost: give up waiting, the deployer reports again."""
        self._ask.set()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result((False, {"code": "connection lost"}))

    def _answered(self, accepted: bool, message: mqtt.IncomingMessage) -> None:
        payload = _object(message.payload)
        waiting = self._answers.get(str(payload.get("clientToken")))
        if waiting is not None and not waiting.done():
            waiting.set_result((accepted, payload))

    def _notified(self, message: mqtt.IncomingMessage) -> None:
        """The list of what is pending; what it does not name although it is older is over (spec/nucleus.md 5.4).

        A list may arrive again late, so it says nothing about jobs queued after it; `$next` is asked in any case.
        """
        payload = _object(message.payload)
        listed = jobs.listed(payload.get("jobs"))
        if len(listed) < jobs.LISTED:
            self._inbox.keep_jobs(listed, before_ms=int(float(payload.get("timestamp") or 0) * 1000))
        self._ask.set()

    def _next(self, message: mqtt.IncomingMessage) -> None:
        try:
            answer = jobs.read_next(message.payload)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._log.error("job.unreadable", why=str(error))
            return
        execution = answer.execution
        if execution is None and answer.client_token == self._asked:
            self._inbox.keep_jobs(frozenset())  # the answer to our latest question: nothing is pending
        if execution is not None:
            _hand_on(self._inbox, execution.job_document, deployments.JOB, execution.job_id, execution.queued_at)


class ShadowSource:
    """The named shadow that carries deployments to this thing alone."""

    def __init__(self, connection: mqtt.Connection, thing: str, inbox: Inbox, log: logs.Log) -> None:
        self._connection = connection
        self._thing = thing
        self._prefix = jobs.shadow(thing)
        self._inbox = inbox
        self._log = log
        self._ask = asyncio.Event()
        self._version = self._at = 0
        self._last_arn = ""
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def run(self) -> None:
        self._connection.on_connected(self._reconnected)
        await self._connection.subscribe(f"{self._prefix}/get/accepted", 1, self._got)
        await self._connection.subscribe(f"{self._prefix}/update/accepted", 1, self._got)
        await self._connection.subscribe(f"{self._prefix}/update/rejected", 1, self._rejected)
        await _ask_for_ever(
            self._connection, self._ask, lambda: self._connection.publish(f"{self._prefix}/get", b"{}", 1)
        )

    async def report(self, record: deployments.Record, state: str, details: dict[str, Any]) -> bool:
        """Writes the reported part; True when the service has accepted it or never will. Waits at most ANSWER_S."""
        if not self._connection.connected:
            return False
        if record.result is not None and state == record.result.status:
            details = status.details(record.result)
        token = uuid.uuid4().hex
        reported = {
            "fleetConfigurationArnForStatus": record.document.configuration_arn,
            "status": state,
            "statusDetails": details,
            "ggcVersion": status.VERSION,
        }
        body = {"shadowName": jobs.SHADOW, "thingName": self._thing, "state": {"reported": reported}}
        body["clientToken"] = token
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[token] = answer
        try:
            await self._connection.publish(f"{self._prefix}/update", json.dumps(body).encode(), 1)
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            return False
        finally:
            del self._answers[token]

    def _reconnected(self) -> None:
        self._ask.set()
        for token in list(self._answers):
            self._settle(token, False)

    def _settle(self, token: Any, accepted: bool) -> None:
        waiting = self._answers.get(str(token))
        if waiting is not None and not waiting.done():
            waiting.set_result(accepted)

    def _rejected(self, message: mqtt.IncomingMessage) -> None:
        payload = _object(message.payload)
        final = payload.get("code") in (400, 413, 415)  # no repetition makes it right
        if final:
            self._log.error("shadow.update_rejected", code=payload.get("code"), why=payload.get("message"))
        self._settle(payload.get("clientToken"), final)

    def _got(self, message: mqtt.IncomingMessage) -> None:
        payload = _object(message.payload)
        self._settle(payload.get("clientToken"), True)
        state = _part(payload, "state")
        desired = _part(state, "desired")
        version, at = payload.get("version"), _integer(payload.get("timestamp"))
        if not desired or not isinstance(version, int) or (version < self._version and at <= self._at):
            return  # our own report, or older than what we have seen; told later with less, the shadow was made anew
        self._version, self._at = version, at
        config, wanted = desired.get("fleetConfig"), desired.get("desiredStatus")
        if config is None and wanted is not None and message.topic.endswith("/update/accepted"):
            self._ask.set()  # an update tells only what changed: which deployment is meant stands in the whole shadow
            return
        if not isinstance(config, str) or wanted not in (status.SUCCEEDED, status.CANCELED):
            return
        arn = str(_object(config.encode()).get("configurationArn") or "")
        if wanted == status.CANCELED:
            self._inbox.cancel(deployments.SHADOW, arn)
            return
        reported = _part(state, "reported")
        settled = reported.get("fleetConfigurationArnForStatus") == arn and reported.get("status") != "IN_PROGRESS"
        if settled or arn == self._last_arn:
            return
        self._last_arn = arn
        _hand_on(self._inbox, _object(config.encode()), deployments.SHADOW, arn, float(at))


async def _ask_for_ever(connection: mqtt.Connection, ask: asyncio.Event, publish: Callable[[], Any]) -> None:
    """Asks when told to and from time to time; offline not at all: every connection asks anyway."""
    ask.set()
    while True:
        try:
            async with asyncio.timeout(ASK_AGAIN_S * random.uniform(0.9, 1.1)):  # noqa: S311  jitter, not a secret
                await ask.wait()
        except TimeoutError:
            pass
        ask.clear()
        if connection.connected:
            with contextlib.suppress(errors.NucleusError):  # the spool is full: the next round asks again
                await publish()


def _hand_on(inbox: Inbox, data: Any, source: str, carrier: str, queued_at: float) -> None:
    """A document that cannot be read is refused with its reason: the cloud must not wait for it."""
    queued_ms = int(queued_at * 1000)
    try:
        found = document.read_cloud(data)
    except errors.NucleusError as error:
        empty = document.Document(
            deployment_id=f"unreadable-{carrier}"[:200], configuration_arn=carrier, group="", created_ms=queued_ms
        )
        inbox.refuse(deployments.Record(document=empty, source=source, carrier=carrier, queued_ms=queued_ms), error)
        return
    inbox.submit(deployments.Record(document=found, source=source, carrier=carrier, queued_ms=queued_ms))


def _state(rejection: dict[str, Any]) -> str:
    state = rejection.get("executionState")
    return str(state.get("status") or "") if isinstance(state, dict) else ""


def _part(data: dict[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _object(payload: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(payload or b"{}")
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
