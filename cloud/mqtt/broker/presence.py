"""Presence events in AWS IoT's shape (developer guide, "Lifecycle events"), on `$aws/events/presence/…`."""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.mqtt.broker import link, messages
from nucleus.wire import mqtt_properties


def connected(of: link.Link, now_ms: int) -> messages.Message | None:
    return _event(of, "connected", now_ms, {"ipAddress": of.peer})


def disconnected(of: link.Link, reason: str, now_ms: int) -> messages.Message | None:
    """`reason` is a word of AWS's list: CLIENT_INITIATED_DISCONNECT, CONNECTION_LOST, DUPLICATE_CLIENTID, …"""
    by_client = reason == "CLIENT_INITIATED_DISCONNECT"
    return _event(of, "disconnected", now_ms, {"clientInitiatedDisconnect": by_client, "disconnectReason": reason})


def _event(of: link.Link, kind: str, now_ms: int, more: dict[str, Any]) -> messages.Message | None:
    """None for the service itself and for ids that cannot stand in a topic, as AWS documents."""
    if of.service or any(letter in of.client_id for letter in "+#"):
        return None
    event = {
        "clientId": of.client_id,
        "timestamp": now_ms,
        "eventType": kind,
        "sessionIdentifier": of.session_id,
        "principalIdentifier": of.principal,
        "versionNumber": 0,
        **more,
    }
    topic = f"$aws/events/presence/{kind}/{of.client_id}"
    return messages.Message(
        topic, msgspec.json.encode(event), 1, False, mqtt_properties.NONE, of.client_id, of.principal
    )
