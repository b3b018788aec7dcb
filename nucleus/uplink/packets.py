"""MQTT 5 packets of awscrt as our values and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.uplink import crt


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where and as whom to connect. Paths are PEM files."""

    host: str
    port: int
    client_id: str
    certificate: Path
    private_key: Path
    root_ca: Path
    keep_alive_s: int = 60
    session_expiry_s: int = 604_800


class IncomingMessage(Struct, frozen=True, kw_only=True):
    """A message of the broker; `properties` holds the MQTT 5 fields under their IPC names."""

    topic: str
    payload: bytes
    retain: bool = False
    properties: dict[str, Any] = {}


def reason(data: Any) -> str:
    packet = getattr(data, "connack_packet", None) or getattr(data, "disconnect_packet", None)
    if packet is not None and packet.reason_code:
        return f"{data.exception} (reason {int(packet.reason_code):#04x} {packet.reason_string or ''})".strip()
    return str(data.exception)


_FIELDS = {  # IPC name -> awscrt name (spec/ipc.md 3, PublishToIoTCore)
    "messageExpiryIntervalSeconds": "message_expiry_interval_sec",
    "correlationData": "correlation_data_bytes",
    "responseTopic": "response_topic",
    "contentType": "content_type",
    "retain": "retain",
}


def outgoing_fields(properties: dict[str, Any]) -> dict[str, Any]:
    fields = {crt: properties[name] for name, crt in _FIELDS.items() if properties.get(name) is not None}
    if properties.get("payloadFormat") is not None:
        fields["payload_format_indicator"] = crt.mqtt5.PayloadFormatIndicator(int(properties["payloadFormat"]))
    if properties.get("userProperties"):
        fields["user_properties"] = [
            crt.mqtt5.UserProperty(name=one["key"], value=one["value"]) for one in properties["userProperties"]
        ]
    return fields


def incoming(packet: Any) -> IncomingMessage:
    return IncomingMessage(
        topic=packet.topic,
        payload=bytes(packet.payload or b""),
        retain=bool(packet.retain),
        properties=_incoming_fields(packet),
    )


def _incoming_fields(packet: Any) -> dict[str, Any]:
    fields = {name: getattr(packet, crt, None) for name, crt in _FIELDS.items() if name != "retain"}
    if packet.payload_format_indicator is not None:
        fields["payloadFormat"] = str(int(packet.payload_format_indicator))
    if packet.user_properties:
        fields["userProperties"] = [{"key": one.name, "value": one.value} for one in packet.user_properties]
    return {name: value for name, value in fields.items() if value is not None}
