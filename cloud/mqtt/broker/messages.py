"""A message on its way through the broker, encoded once for all subscribers that get the same bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.mqtt import port
from nucleus.wire import mqtt, mqtt_packets, mqtt_properties


class Message(msgspec.Struct):
    """`expires_at_ms` is epoch milliseconds, 0 for never. `client_id` and `principal` are the publisher's ("" = broker).

    `row` and `references` belong to the journal: the message's row and how many stored queue entries point at it.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: mqtt_properties.Properties
    client_id: str
    principal: str
    expires_at_ms: int = 0
    row: int = 0
    references: int = 0
    encoded: tuple[Any, bytes, bytes] | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.payload) + len(self.topic) + 200  # 200: what the records around it cost, about


class Delivery(msgspec.Struct):
    """A message in one session's queue, at QoS 1. `sequence` orders the queue and is its key on disk."""

    message: Message
    sequence: int
    retain: bool
    identifiers: tuple[int, ...]
    sent: bool = False


def parts(
    message: Message, *, version: int, qos: int, retain: bool, identifiers: tuple[int, ...], now_ms: int, service: bool
) -> tuple[bytes, bytes]:
    """Head and tail of the PUBLISH (see `mqtt.publish_parts`); the last encoding is remembered."""
    remaining_s = max((message.expires_at_ms - now_ms + 999) // 1000, 1) if message.expires_at_ms else 0
    key = (version, qos, retain, identifiers, remaining_s, service)
    if message.encoded is not None and message.encoded[0] == key:
        return message.encoded[1], message.encoded[2]
    properties = message.properties
    if remaining_s or identifiers or service:
        properties = _complete(message, identifiers, remaining_s, service=service)
    packet = mqtt_packets.Publish(message.topic, message.payload, qos, retain, properties=properties)
    head, tail = mqtt.publish_parts(packet, version)
    message.encoded = (key, head, tail)
    return head, tail


def _complete(
    message: Message, identifiers: tuple[int, ...], remaining_s: int, *, service: bool
) -> mqtt_properties.Properties:
    changes: dict[str, object] = {"subscription_identifiers": identifiers, "message_expiry_s": remaining_s or None}
    if service:
        added = ((port.CLIENT_ID_PROPERTY, message.client_id), (port.PRINCIPAL_PROPERTY, message.principal))
        changes["user"] = message.properties.user + added
    return msgspec.structs.replace(message.properties, **changes)
