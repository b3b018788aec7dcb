"""Tells this device and the cloud about models: metrics, status, drift and trials, without ever holding anybody up.

    marram/models/<alias>/<kind>                     local, JSON message
    marram/things/<thing>/models/<alias>/<kind>      IoT Core, QoS 1, the same JSON

Every message is the fields it was given and `schemaVersion` 1, `thing`, `alias`, `at` (epoch seconds). One thread sends them in
order over one connection to the nucleus and makes it anew when it breaks. While the nucleus is away they wait; beyond
QUEUE_LIMIT the oldest metrics go first, then whatever is oldest, and both are counted. A message may come twice when
the connection broke before its answer.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

QUEUE_LIMIT = 512
PAYLOAD_LIMIT_BYTES = 120 * 1024  # IoT Core takes 128 KiB
METRICS = "metrics"
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_GONE = ("ConnectionError", "Timeout", "AccessDenied")  # a nucleus that restarts knows the token again in a moment
_LATER = (*_GONE, "ServiceError")
_TRIES = 5  # for a nucleus that answers, but with ServiceError


class Publisher(Protocol):
    """Where news about models go."""

    def publish(
        self, alias: str, kind: str, fields: Mapping[str, Any], *, local: bool = True, cloud: bool = True
    ) -> None:
        """Takes one message and returns at once; `kind` is metrics, status, drift or trial."""

    def counts(self) -> dict[str, int]:
        """`sent`, `dropped`, `refused` and `waiting` messages since the agent started."""

    def close(self, within_s: float = 1.0) -> None:
        """Sends what waits, for at most this long."""


@dataclass(frozen=True)
class _Message:
    kind: str
    to_cloud: bool
    topic: str
    payload: bytes


class _Nowhere:
    """For an agent that was started by hand: there is no nucleus to tell."""

    def publish(
        self, alias: str, kind: str, fields: Mapping[str, Any], *, local: bool = True, cloud: bool = True
    ) -> None:
        """Does nothing."""

    def counts(self) -> dict[str, int]:
        """Nothing was sent."""
        return {"sent": 0, "dropped": 0, "refused": 0, "waiting": 0}

    def close(self, within_s: float = 1.0) -> None:
        """Nothing waits."""


NONE: Publisher = _Nowhere()


class Reporter:
    """Sends through the nucleus whose socket and token the environment names; `thing` is part of the topics."""

    def __init__(self, thing: str) -> None:
        self._thing = thing
        self._changed = threading.Condition()
        self._waiting: collections.deque[_Message] = collections.deque()
        self._counts = {"sent": 0, "dropped": 0, "refused": 0}
        self._said: set[str] = set()
        self._closed = False
        self._random = random.Random()  # noqa: S311 spreads the tries of many agents
        # Only here: the file is put beside this one when the component is published (design.md 4.2).
        self._ipc: Any = importlib.import_module("marram_ipc")
        self._client: Any = None
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)
        self._thread.start()

    def publish(
        self, alias: str, kind: str, fields: Mapping[str, Any], *, local: bool = True, cloud: bool = True
    ) -> None:
        """Takes one message and returns at once. Raises ValueError for fields that are no JSON or above the limit."""
        whole = {"schemaVersion": 1, "thing": self._thing, "alias": alias, "at": round(time.time(), 3), **fields}
        payload = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise ValueError(f"cannot report {kind} of {alias}: {len(payload)} bytes are above {PAYLOAD_LIMIT_BYTES}")
        below = f"models/{alias}/{kind}"
        with self._changed:
            if local:
                self._add(_Message(kind, False, f"marram/{below}", payload))
            if cloud:
                self._add(_Message(kind, True, f"marram/things/{self._thing}/{below}", payload))
            self._changed.notify_all()

    def counts(self) -> dict[str, int]:
        """`sent`, `dropped` (no room), `refused` (by the nucleus) and `waiting` messages since the agent started."""
        with self._changed:
            return {**self._counts, "waiting": len(self._waiting)}

    def close(self, within_s: float = 1.0) -> None:
        """Sends what waits, for at most this long; nothing is taken afterwards."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(within_s)

    def _add(self, message: _Message) -> None:
        if self._closed:
            return
        if len(self._waiting) >= QUEUE_LIMIT:
            # Never the first: it is being sent.
            oldest = next((at for at, each in enumerate(self._waiting) if at and each.kind == METRICS), 1)
            del self._waiting[oldest]
            self._counts["dropped"] += 1
        self._waiting.append(message)

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            self._disconnect()

    def _send_all(self) -> None:
        pause_s, tries = _FIRST_PAUSE_S, 0
        while (message := self._next()) is not None:
            code = self._sent(message)
            tries = tries + 1 if code not in ("", *_GONE) else 0
            if code in _LATER and tries < _TRIES:
                self._say(code, f"cannot report {message.topic} for now: {code}; it is tried again")
                if self._closes_within(pause_s * self._random.uniform(0.5, 1.0)):
                    return
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                continue
            with self._changed:
                self._counts["refused" if code else "sent"] += 1
                self._waiting.popleft()
            pause_s, tries = _FIRST_PAUSE_S, 0

    def _next(self) -> _Message | None:
        """The oldest message, which stays in the queue until it is sent; None when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting[0] if self._waiting else None

    def _closes_within(self, pause_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, pause_s)

    def _sent(self, message: _Message) -> str:
        """Tries once; returns "" or the code of the error."""
        try:
            if self._client is None:
                self._client = self._ipc.Client()
            if message.to_cloud:
                self._client.publish_to_iot_core(message.topic, message.payload)
            else:
                self._client.publish(message.topic, json.loads(message.payload))
        except self._ipc.IPCError as error:
            if error.code in _GONE:
                self._disconnect()
            if error.code not in _LATER:
                self._say(f"{error.code} {message.to_cloud}", f"the nucleus took no report to {message.topic}: {error}")
            return str(error.code)
        return ""

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _say(self, about: str, line: str) -> None:
        """Each reason once: a nucleus that is away for days must not fill the log."""
        if about not in self._said:
            self._said.add(about)
            print(line, file=sys.stderr, flush=True)


def open_reporter() -> Publisher:
    """A reporter to this component's nucleus, NONE for an agent that was started by hand."""
    thing = os.environ.get("AWS_IOT_THING_NAME", "")
    return Reporter(thing or "unnamed") if os.environ.get("SVCUID") else NONE
