"""The packets of MQTT 3.1.1 and 5 as records, and the reason codes.

Both versions share the records: what 3.1.1 does not carry stays at its default. Reason codes are MQTT 5's everywhere;
the codec translates where 3.1.1 has a code of its own. QoS 2 does not exist here (spec/broker.md 2).
"""

from __future__ import annotations

import enum

import msgspec

from nucleus.wire import mqtt_properties

V311 = 4
V5 = 5


class Reason(enum.IntEnum):
    """Reason codes of MQTT 5.0, table 2-6, as far as they are sent or understood here."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_USER_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    QOS_NOT_SUPPORTED = 0x9B
    SHARED_NOT_SUPPORTED = 0x9E


class Will(msgspec.Struct, frozen=True):
    """The message the broker publishes when its client is gone without a goodbye."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Connect(msgspec.Struct, frozen=True):
    """`clean_start` is also 3.1.1's clean session; `version` is 4 (3.1.1) or 5."""

    client_id: str
    version: int = V5
    clean_start: bool = True
    keep_alive_s: int = 0
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Connack(msgspec.Struct, frozen=True):
    session_present: bool
    reason: int
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Publish(msgspec.Struct, frozen=True):
    """`packet_id` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Puback(msgspec.Struct, frozen=True):
    packet_id: int
    reason: int = 0
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Request(msgspec.Struct, frozen=True):
    """One filter of a SUBSCRIBE with its options."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0  # 0 send retained, 1 only for a new subscription, 2 never


class Subscribe(msgspec.Struct, frozen=True):
    packet_id: int
    requests: tuple[Request, ...]
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Suback(msgspec.Struct, frozen=True):
    packet_id: int
    reasons: tuple[int, ...]
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Unsubscribe(msgspec.Struct, frozen=True):
    packet_id: int
    filters: tuple[str, ...]
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Unsuback(msgspec.Struct, frozen=True):
    """`reasons` is empty in 3.1.1."""

    packet_id: int
    reasons: tuple[int, ...] = ()
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Pingreq(msgspec.Struct, frozen=True):
    pass


class Pingresp(msgspec.Struct, frozen=True):
    pass


class Disconnect(msgspec.Struct, frozen=True):
    reason: int = 0
    properties: mqtt_properties.Properties = mqtt_properties.NONE


class Auth(msgspec.Struct, frozen=True):
    reason: int = 0
    properties: mqtt_properties.Properties = mqtt_properties.NONE


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
