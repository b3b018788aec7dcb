"""Tells the cloud how the device and its components are (spec/nucleus.md 6.1).

Component messages are at least 3 s apart; results of deployments go out at once: an operator waits for them. Offline nothing
is sent: what changed is remembered, and the next connection brings a COMPLETE message. The sequence number is durable.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nucleus.core import configuration, desired, errors, safe_mode, status
from nucleus.core.lifecycle import Health, State
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments
from nucleus.wire import jobs

SPACING_S = 3.0
CADENCE_S = 86_400.0
RECONNECT_S = 60.0  # between two messages that only say "I am back"
LOOK_AGAIN_S = 30.0  # whether all have come to rest; every change of a state looks at once
KEPT_RESULTS = 100  # of deployments that ended offline
SEQUENCE = ("services", "FleetStatusService", "runtime", "sequenceNumber")
TRIGGERS = {deployments.JOB: "THING_GROUP_DEPLOYMENT", deployments.SHADOW: "THING_DEPLOYMENT"}
BAD = frozenset({State.ERRORED, State.BROKEN})


class Publisher(Protocol):
    @property
    def connected(self) -> bool: ...

    async def publish(self, topic: str, payload: bytes, qos: int = 1, /) -> None: ...


class FleetStatus:
    """Owns what was reported. `health` gives the components; `platform` the attributes of the device."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        thing: str,
        platform: Mapping[str, str],
        store: configuration_store.ConfigurationStore,
        health: Callable[[], dict[str, Health]],
        log: logs.Log,
        spacing_s: float = SPACING_S,
        cadence_s: float = CADENCE_S,
    ) -> None:
        self._publisher = publisher
        self._thing = thing
        self._platform = platform
        self._store = store
        self._health = health
        self._log = log
        self._spacing_s = spacing_s
        self._cadence_s = cadence_s
        self._ended: collections.deque[deployments.Record] = collections.deque(maxlen=KEPT_RESULTS)
        self._changed: set[str] = set()
        self._bad: dict[str, Health] = {}  # as they were when they became ERRORED or BROKEN
        self._complete = "NUCLEUS_LAUNCH"  # the trigger of a COMPLETE message that is due, or ""
        self._complete_at: float | None = None
        self._unsettled = True  # components move after a launch or an error; told once all have come to rest
        self._not_before = self._look_at = 0.0
        self._last_sequence = 0
        self._wake = asyncio.Event()

    def connected(self) -> None:
        """Called after every connection. A storm of them is answered once a minute, unless something changed meanwhile."""
        quiet = self._complete_at is not None and time.monotonic() - self._complete_at < RECONNECT_S
        if self._changed or not quiet:
            self._complete = self._complete or "RECONNECT"
        self._wake.set()

    def deployment_ended(self, record: deployments.Record) -> None:
        self._ended.append(record)
        self._wake.set()

    def component_changed(self, health: Health) -> None:
        """ERRORED and BROKEN are told; after that, what changed once all have come to rest again."""
        if health.state in BAD:
            self._unsettled = True
            self._bad[health.name] = health
        elif not self._unsettled:
            return
        self._changed.add(health.name)
        self._look_at = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled; wakes for the cadence by itself."""
        cadence_at = time.monotonic() + self._cadence_s * random.uniform(0.95, 1.0)  # noqa: S311  jitter
        while True:
            held = max(self._not_before, self._look_at) if self._changed and self._publisher.connected else cadence_at
            try:
                async with asyncio.timeout(max(min(held, cadence_at) - time.monotonic(), 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                if time.monotonic() >= cadence_at:
                    cadence_at = time.monotonic() + self._cadence_s
                    self._complete = self._complete or "CADENCE"
            self._wake.clear()
            if self._publisher.connected:
                await self._send_what_is_due()

    async def _send_what_is_due(self) -> None:
        if self._complete and not (self._complete == "RECONNECT" and self._ended):  # a result says as much
            await self._send_all(self._complete)
        while self._ended:
            record = self._ended.popleft()
            await self._send_all(TRIGGERS.get(record.source, "LOCAL_DEPLOYMENT"), self._deployment(record))
        if self._changed and time.monotonic() >= self._not_before:
            await self._send_changes()

    async def _send_all(self, trigger: str, deployment: dict[str, Any] | None = None) -> None:
        """Everything, so that nothing of before is worth telling; components that still move are told when they rest."""
        self._complete, self._complete_at = "", time.monotonic()
        self._changed.clear()
        self._bad.clear()
        current = self._health()
        self._unsettled = self._unsettled or not all(_at_rest(one) for one in current.values())
        await self._send(trigger, "COMPLETE", current, deployment)

    async def _send_changes(self) -> None:
        current = self._health()
        self._changed &= current.keys()  # what was removed since is not installed again by telling it
        bad = {name: one for name, one in self._bad.items() if name in self._changed}
        if all(_at_rest(one) for one in current.values()):
            told = {name: current[name] for name in self._changed}
            self._unsettled = False
        else:
            told = bad
        self._bad.clear()
        if not told:
            self._look_at = time.monotonic() + LOOK_AGAIN_S
            return
        self._changed -= {name for name, one in told.items() if one.state is current[name].state}
        await self._send("COMPONENT_STATUS_CHANGE", "PARTIAL", told)

    async def _send(
        self, trigger: str, kind: str, health: Mapping[str, Health], deployment: dict[str, Any] | None = None
    ) -> None:
        safe = safe_mode.why(self._store.tree)
        header: dict[str, Any] = {
            "ggcVersion": status.VERSION,
            "platform": self._platform.get("os", "unknown"),
            "architecture": self._platform.get("architecture", "unknown"),
            "runtime": status.RUNTIME,
            "thing": self._thing,
            "overallDeviceStatus": "UNHEALTHY" if safe else status.overall(self._health().values()),
            "sequenceNumber": self._sequence(),
            "timestamp": int(time.time() * 1000),
            "messageType": kind,
            "trigger": trigger,
        }
        self._not_before = (
            time.monotonic() + self._spacing_s
        )  # from its timestamp on: the number before it took a disk's time
        if safe:
            header["marram"] = {"mode": "SAFE_MODE", "reason": safe[: status.MAX_DETAIL]}
        if deployment is not None:
            header["deploymentInformation"] = deployment
        components = [self._entry(one) for _, one in sorted(health.items())]
        for payload in status.messages(
            header, components, lambda value: json.dumps(value, separators=(",", ":")).encode()
        ):
            try:
                await self._publisher.publish(jobs.fleet_status(self._thing), payload, 1)
            except errors.NucleusError as error:
                self._log.warning("fleet_status.not_sent", trigger=trigger, why=error.detail)

    def _deployment(self, record: deployments.Record) -> dict[str, Any]:
        """What the message says of a deployment; its roots that are as before it are the unchanged ones."""
        result = record.result
        assert result is not None
        before, now = record.previous or {}, desired.installed(self._store.tree)
        unchanged = sorted(
            name for name in record.document.components if name in before and before[name] == now.get(name)
        )
        return {
            "status": result.status,
            "statusDetails": status.details(result),
            "fleetConfigurationArnForStatus": record.document.configuration_arn,
            "deploymentId": record.id,
            "unchangedRootComponents": unchanged,
        }

    def _entry(self, one: Health) -> dict[str, Any]:
        arns, is_root = desired.arns_of(self._store.tree, one.name)
        return status.component_entry(one, arns=arns, is_root=is_root)

    def _sequence(self) -> int:
        """The next number; on a disk that does not take it, counted on in memory: the status is worth more."""
        try:
            last = int(configuration.get(self._store.tree, SEQUENCE))
        except (KeyError, TypeError, ValueError):
            last = 0
        self._last_sequence = max(last, self._last_sequence) + 1
        try:
            self._store.commit((configuration.Change(SEQUENCE, self._last_sequence, self._store.now(), "nucleus"),))
        except errors.NucleusError as error:
            self._log.error("fleet_status.cannot_write", code=error.code, why=error.detail)
        return self._last_sequence


def _at_rest(one: Health) -> bool:
    """Settled, stopped by somebody, or waiting for a hard dependency that itself may rest or not."""
    waits = one.waiting_for.startswith("hard dependency") or not one.waiting_for
    return one.settled or (one.state is State.INSTALLED and waits)
