"""MQTT 5 packets of awscrt as our values and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.core import errors, topics
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


def check_topic(topic: str) -> None:
    """Raises NucleusError for what nobody can publish to."""
    if not topics.is_topic(topic):
        raise errors.NucleusError("BAD_REQUEST", f"cannot publish to {topic[:200]!r}: it is no topic")


def client_options(endpoint: Endpoint, behavior: str, **callbacks: Any) -> Any:
    """Of a client that connects until it is stopped, and fails what is under way when the connection goes."""
    tls = crt.io.TlsContextOptions.create_client_with_mtls_from_path(
        str(endpoint.certificate), str(endpoint.private_key)
    )
    tls.override_default_trust_store_from_path(None, str(endpoint.root_ca))
    return crt.mqtt5.ClientOptions(
        host_name=endpoint.host,
        port=endpoint.port,
        tls_ctx=crt.io.ClientTlsContext(tls),
        connect_options=crt.mqtt5.ConnectPacket(
            client_id=endpoint.client_id,
            keep_alive_interval_sec=endpoint.keep_alive_s,
            session_expiry_interval_sec=endpoint.session_expiry_s,
            receive_maximum=100,
        ),
        session_behavior=crt.mqtt5.ClientSessionBehaviorType[behavior],
        offline_queue_behavior=crt.mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT,
        retry_jitter_mode=crt.mqtt5.ExponentialBackoffJitterMode.FULL,
        min_reconnect_delay_ms=250,
        max_reconnect_delay_ms=120_000,
        min_connected_time_to_reset_reconnect_delay_ms=20_000,  # two devices of one name kick each other rarely
        **callbacks,
    )


def subscribe(filter_: str, qos: int) -> Any:
    one = crt.mqtt5.Subscription(topic_filter=filter_, qos=crt.mqtt5.QoS(qos))
    return crt.mqtt5.SubscribePacket(subscriptions=[one])


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
