"""Tells the others: alarms and counters over the nucleus's IPC, with the official client.

Alarms go to `turbines/<thing>/alarms` on this device (PublishToTopic) and to the cloud (PublishToIoTCore, QoS 1), counters
once a second to `turbines/<thing>/counters` in the cloud and into counters.json in the work folder (replaced as a whole).
It has its own thread, so that a nucleus that is slow or gone never stops predictions. What cannot be told now stays in
the database and is tried again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alarms
from awscrt.exceptions import AwsCrtError
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import QOS, JsonMessage, PublishMessage

ANSWER_S = 10.0
COUNTERS_EVERY_S = 1.0
LOOK_EVERY_S = 0.2
RECONNECT_AFTER_S = 2.0
# All of the client's own errors are RuntimeErrors, its time-outs and connection errors OSErrors or the CRT's.
_FAILURES = (AwsCrtError, OSError, RuntimeError)


class Publisher:
    """Publishes what lies in the database and what `counters` returns, until stopped."""

    def __init__(self, thing: str, work: Path, counters: Callable[[], dict[str, Any]]) -> None:
        self._topic = f"turbines/{thing}"
        self._work = work
        self._counters = counters
        self._client: Any = None
        self._not_before = 0.0
        self._said = ""
        self.broken = False

    def run(self, stopped: threading.Event) -> None:
        """Works until `stopped`, then once more; if it cannot go on, sets `stopped` itself and `broken`."""
        try:
            self._run(stopped)
        except (sqlite3.Error, OSError) as error:
            self.broken = True
            print(f"cannot go on publishing: {error}", file=sys.stderr, flush=True)
        finally:
            stopped.set()

    def _run(self, stopped: threading.Event) -> None:
        store = alarms.Alarms(self._work / "alarms.sqlite")
        counters_due = 0.0
        last = False
        while not last:
            last = stopped.wait(LOOK_EVERY_S)
            if last or time.monotonic() >= counters_due:
                counters_due = time.monotonic() + COUNTERS_EVERY_S
                self._tell_counters()
            self._tell_alarms(store)
        store.close()

    def _tell_alarms(self, store: alarms.Alarms) -> None:
        for alarm_id, message in store.unpublished():
            if not self._attempt(self._publish_alarm, message):
                return
            store.mark_published(alarm_id)
            print(f"alarm {json.dumps(message)}", flush=True)

    def _tell_counters(self) -> None:
        counters = self._counters()
        new = self._work / "counters.json.new"
        new.write_text(json.dumps(counters, indent=1) + "\n")
        new.replace(self._work / "counters.json")
        self._attempt(self._publish_counters, counters)

    def _publish_alarm(self, message: dict[str, Any]) -> None:
        topic = f"{self._topic}/alarms"
        local = PublishMessage(json_message=JsonMessage(message=message))
        self._client.publish_to_topic_async(topic=topic, publish_message=local).result(ANSWER_S)
        self._to_cloud(topic, message)

    def _publish_counters(self, counters: dict[str, Any]) -> None:
        self._to_cloud(f"{self._topic}/counters", counters)

    def _to_cloud(self, topic: str, message: dict[str, Any]) -> None:
        payload = json.dumps(message).encode()
        sent = self._client.publish_to_iot_core_async(topic_name=topic, qos=QOS.AT_LEAST_ONCE, payload=payload)
        sent.result(ANSWER_S)

    def _attempt(self, publish: Callable[[dict[str, Any]], None], message: dict[str, Any]) -> bool:
        """One try; on failure says why once and makes a new connection after a pause."""
        if time.monotonic() < self._not_before:
            return False
        try:
            if self._client is None:
                self._client = GreengrassCoreIPCClientV2()
            publish(message)
        except _FAILURES as error:
            self._give_up(error)
            return False
        self._said = ""
        return True

    def _give_up(self, error: BaseException) -> None:
        reason = f"cannot publish for now: {type(error).__name__} {getattr(error, 'message', '') or error}"
        if reason != self._said:
            print(reason, flush=True)
            self._said = reason
        self._not_before = time.monotonic() + RECONNECT_AFTER_S
        client, self._client = self._client, None
        if client is not None:
            client.close(executor_wait=False)


def require_nucleus() -> None:
    """Raises ValueError if this process was not started by a nucleus."""
    for name in ("SVCUID", "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"):
        if not os.environ.get(name):
            raise ValueError(f"cannot publish: {name} is not set; run the monitor as a component")
