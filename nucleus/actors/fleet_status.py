"""Tells the cloud how the device and its components are (spec/nucleus.md 6.1).

One queue of triggers, at least 3 s between component messages; the sequence number is durable in the configuration.
Deployment results go out at once: an operator waits for them.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nucleus.core import configuration, desired, errors, status
from nucleus.core.lifecycle import Health, State
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments
from nucleus.wire import jobs

SPACING_S = 3.0
CADENCE_S = 86_400.0
EMPTY_RECONNECT_S = 60.0
SEQUENCE = ("services", "FleetStatusService", "runtime", "sequenceNumber")
TRIGGERS = {deployments.JOB: "THING_GROUP_DEPLOYMENT", deployments.SHADOW: "THING_DEPLOYMENT"}
TERMINAL = frozenset({State.RUNNING, State.FINISHED, State.BROKEN, State.INSTALLED, State.NEW})


class Publisher(Protocol):
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
    ) -> None:
        self._publisher = publisher
        self._thing = thing
        self._platform = platform
        self._store = store
        self._health = health
        self._log = log
        self._ended: list[deployments.Record] = []
        self._changed: dict[str, Health] = {}
        self._launch = True
        self._reconnected = False
        self._errors = False
        self._wake = asyncio.Event()

    def launched(self) -> None:
        self._launch = True
        self._wake.set()

    def connected(self) -> None:
        self._reconnected = not self._launch
        self._wake.set()

    def deployment_ended(self, record: deployments.Record) -> None:
        self._ended.append(record)
        self._wake.set()

    def component_changed(self, health: Health) -> None:
        """ERRORED and BROKEN are told; after that, everything once all are in a terminal state again."""
        if health.state in (State.ERRORED, State.BROKEN):
            self._errors = True
            self._changed[health.name] = health
            self._wake.set()
        elif self._errors:
            self._changed[health.name] = health
            self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled; wakes for the cadence by itself."""
        while True:
            try:
                async with asyncio.timeout(CADENCE_S * random.uniform(0.95, 1.0)):  # noqa: S311  jitter
                    await self._wake.wait()
            except TimeoutError:
                self._launch_or("CADENCE")
            self._wake.clear()
            spaced = await self._send_what_is_due()
            if spaced:
                await asyncio.sleep(SPACING_S)  # results of deployments wait too: 3 s is the protocol's own spacing

    def _launch_or(self, _trigger: str) -> None:
        self._launch = True

    async def _send_what_is_due(self) -> bool:
        """True when a component message went out, after which 3 s must pass."""
        if self._launch:
            self._launch = False
            await self._send("NUCLEUS_LAUNCH", "COMPLETE", self._health())
        while self._ended:
            record = self._ended.pop(0)
            trigger = TRIGGERS.get(record.source, "LOCAL_DEPLOYMENT")
            await self._send(trigger, "COMPLETE", self._health(), _deployment(record))
        if self._reconnected:
            self._reconnected = False
            await self._send("RECONNECT", "COMPLETE", self._health())
        return await self._send_changes()

    async def _send_changes(self) -> bool:
        bad = {n: h for n, h in self._changed.items() if h.state in (State.ERRORED, State.BROKEN)}
        calm = all(one.state in TERMINAL for one in self._health().values())
        if not bad and not (self._changed and calm):
            return False
        chosen = bad if bad and not calm else dict(self._changed)
        current = self._health()
        for name in chosen:
            self._changed.pop(name, None)
        if calm:
            self._errors = False
        await self._send("COMPONENT_STATUS_CHANGE", "PARTIAL", {n: current.get(n, h) for n, h in chosen.items()})
        return True

    async def _send(
        self, trigger: str, kind: str, health: Mapping[str, Health], deployment: dict[str, Any] | None = None
    ) -> None:
        sequence = self._sequence()
        header: dict[str, Any] = {
            "ggcVersion": status.VERSION,
            "platform": self._platform.get("os", "unknown"),
            "architecture": self._platform.get("architecture", "unknown"),
            "runtime": status.RUNTIME,
            "thing": self._thing,
            "overallDeviceStatus": status.overall(self._health().values()),
            "sequenceNumber": sequence,
            "timestamp": int(time.time() * 1000),
            "messageType": kind,
            "trigger": trigger,
        }
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

    def _entry(self, one: Health) -> dict[str, Any]:
        arns, is_root = desired.arns_of(self._store.tree, one.name)
        return status.component_entry(one, arns=arns, is_root=is_root)

    def _sequence(self) -> int:
        try:
            last = int(configuration.get(self._store.tree, SEQUENCE))
        except KeyError:
            last = 0
        self._store.commit((configuration.Change(SEQUENCE, last + 1, self._store.now(), "nucleus"),))
        return last + 1


def _deployment(record: deployments.Record) -> dict[str, Any]:
    result = record.result
    assert result is not None
    return {
        "status": result.status,
        "statusDetails": status.details(result),
        "fleetConfigurationArnForStatus": record.document.configuration_arn,
        "deploymentId": record.id,
        "unchangedRootComponents": [],
    }
