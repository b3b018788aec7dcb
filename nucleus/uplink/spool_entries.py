"""A message of the spool, its forms for the disk and for the next process image, and the rate at which messages are sent."""

from __future__ import annotations

import math
import time
from typing import Any

from msgspec import Struct, structs

from nucleus.core import handover, rates
from nucleus.store import spool as store

OWN, COMPONENTS = 0, 1  # lanes: the nucleus's own messages go first
EXPIRY = "messageExpiryIntervalSeconds"
PUBLISHES_PER_S, BYTES_PER_S = 100.0, 512.0 * 1024  # spec/nucleus.md 7.6: what AWS IoT takes on one connection


class Message(Struct, frozen=True, kw_only=True):
    """`properties` are the MQTT 5 fields under their IPC names."""

    topic: str
    payload: bytes
    qos: int
    properties: dict[str, Any] = {}


class Entry(Struct, eq=False):
    """A message in its place. `expires_at` is a time of the spool's clock; `stored`: it has, or is getting, a row on disk."""

    key: tuple[int, int]  # lane and number
    message: Message
    size: int
    expires_at: float | None = None
    stored: bool = False
    failures: int = 0


def expiry(message: Message, now: float) -> float | None:
    """When it expires. An interval of 0 is for those who are there now: it gets a second to be sent."""
    interval = message.properties.get(EXPIRY)
    return None if interval is None else now + max(int(interval), 1)


def to_send(entry: Entry, now: float) -> Message:
    """The message with what is left of its expiry interval."""
    if entry.expires_at is None:
        return entry.message
    interval = int(entry.message.properties[EXPIRY])
    left = min(interval, max(math.ceil(entry.expires_at - now), 0))
    return structs.replace(entry.message, properties=entry.message.properties | {EXPIRY: left})


def row(entry: Entry, now: float) -> store.Row:
    """Its form on disk, where expiry is a time of the wall clock: the device may be off in between."""
    left = None if entry.expires_at is None else entry.expires_at - now
    message = entry.message
    return store.Row(
        number=entry.key[1],
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        properties=message.properties,
        expires_ms=0 if left is None else max(int((time.time() + left) * 1000), 1),
    )


def stored_size(message: Message) -> int:
    """What it counts when it is on the disk."""
    return store.size(row(Entry((COMPONENTS, 0), message, 0), 0.0))


def from_row(found: store.Row, now: float) -> Entry:
    message = Message(topic=found.topic, payload=found.payload, qos=found.qos, properties=found.properties)
    expires_at = now + found.expires_ms / 1000 - time.time() if found.expires_ms else None
    return Entry((COMPONENTS, found.number), message, store.size(found), expires_at, stored=True)


def carried(entry: Entry) -> handover.Message:
    message = entry.message
    properties = dict(message.properties)
    correlation = properties.pop("correlationData", None)
    return handover.Message(
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        properties=properties,
        correlation=correlation,
        number=entry.key[1],
        own=entry.key[0] == OWN,
        expires_at=entry.expires_at,
    )


def taken_over(found: handover.Message, number: int) -> Entry:
    """`number` is for one that has no place yet."""
    properties = found.properties | ({} if found.correlation is None else {"correlationData": found.correlation})
    message = Message(topic=found.topic, payload=found.payload, qos=found.qos, properties=properties)
    key = (OWN if found.own else COMPONENTS, found.number or number)
    return Entry(key, message, len(found.payload), found.expires_at)


class Rate:
    """How many messages and bytes may be sent in a second."""

    def __init__(self, now: float) -> None:
        self._messages = rates.full(PUBLISHES_PER_S, now)
        self._bytes = rates.full(BYTES_PER_S, now)

    def wait_s(self, now: float, size: int) -> float:
        """0.0 when a message of this size may go now, which is counted; else the seconds until it may."""
        messages, first = rates.take(self._messages, now)
        held, second = rates.take(self._bytes, now, float(size))
        if first <= 0 and second <= 0:
            self._messages, self._bytes = messages, held
        return max(first, second)
