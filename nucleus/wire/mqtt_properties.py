"""The primitive fields of MQTT and the properties of MQTT 5: bytes to values and back.

Source: OASIS MQTT 5.0, sections 1.5 and 2.2.2.

A block of properties is: length (variable byte integer), then for each property its identifier (one byte) and value.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

PROTOCOL_ERROR = 0x82
MALFORMED = 0x81


class MQTTError(Exception):
    """The peer broke the protocol; `reason` is the MQTT 5 reason code a DISCONNECT or CONNACK should carry."""

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Properties(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every property of MQTT 5; None (or an empty tuple) means absent."""

    payload_format: int | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_s: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_bytes: int | None = None
    wildcard_available: int | None = None
    subscription_identifiers_available: int | None = None
    shared_available: int | None = None


NONE = Properties()

# identifier: (field, kind, letters of the packets that may carry it). Packets: c CONNECT, w will, C CONNACK, p PUBLISH,
# a PUBACK, s SUBSCRIBE, S SUBACK, u UNSUBSCRIBE, U UNSUBACK, d DISCONNECT, A AUTH (MQTT 5.0, table 2-4).
_TABLE: dict[int, tuple[str, str, str]] = {
    0x01: ("payload_format", "flag", "pw"),
    0x02: ("message_expiry_s", "u32", "pw"),
    0x03: ("content_type", "text", "pw"),
    0x08: ("response_topic", "text", "pw"),
    0x09: ("correlation_data", "binary", "pw"),
    0x0B: ("subscription_identifiers", "varint", "ps"),
    0x11: ("session_expiry_s", "u32", "cCd"),
    0x12: ("assigned_client_id", "text", "C"),
    0x13: ("server_keep_alive_s", "u16", "C"),
    0x15: ("authentication_method", "text", "cCA"),
    0x16: ("authentication_data", "binary", "cCA"),
    0x17: ("request_problem_information", "flag", "c"),
    0x18: ("will_delay_s", "u32", "w"),
    0x19: ("request_response_information", "flag", "c"),
    0x1A: ("response_information", "text", "C"),
    0x1C: ("server_reference", "text", "Cd"),
    0x1F: ("reason", "text", "CaSUdA"),
    0x21: ("receive_maximum", "u16", "cC"),
    0x22: ("topic_alias_maximum", "u16", "cC"),
    0x23: ("topic_alias", "u16", "p"),
    0x24: ("maximum_qos", "flag", "C"),
    0x25: ("retain_available", "flag", "C"),
    0x26: ("user", "pair", "cCpwaSsuUdA"),
    0x27: ("maximum_packet_bytes", "u32", "cC"),
    0x28: ("wildcard_available", "flag", "C"),
    0x29: ("subscription_identifiers_available", "flag", "C"),
    0x2A: ("shared_available", "flag", "C"),
}
_BY_FIELD = {field: (identifier, kind) for identifier, (field, kind, _) in _TABLE.items()}
_NEVER_ZERO = frozenset({"receive_maximum", "topic_alias", "maximum_packet_bytes", "subscription_identifiers"})
_PACK_U16 = struct.Struct(">H").pack
_PACK_U32 = struct.Struct(">I").pack


class Cursor:
    """Reads fields one after the other from one packet's body; raises MQTTError where the body ends too early."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.end = len(data)

    def take(self, count: int) -> bytes:
        at = self.at
        if at + count > self.end:
            raise MQTTError(MALFORMED, "cannot read packet: it ends in the middle of a field")
        self.at = at + count
        return self.data[at : at + count]

    def u8(self) -> int:
        return self.take(1)[0]

    def flag(self) -> int:
        value = self.u8()
        if value > 1:
            raise MQTTError(PROTOCOL_ERROR, f"cannot read property: {value} is neither 0 nor 1")
        return value

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MQTTError(MALFORMED, "cannot read packet: a variable byte integer is longer than four bytes")

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        return text(self.binary())

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()

    def rest(self) -> bytes:
        return self.take(self.end - self.at)

    def properties(self, packet: str) -> Properties:
        """Reads a block of properties; `packet` is the letter of the packet in the table above."""
        length = self.varint()
        if length == 0:
            return NONE
        block = Cursor(self.take(length))
        fields: dict[str, Any] = {}
        while block.at < block.end:
            _read_property(block, packet, fields)
        return Properties(**fields)


def text(data: bytes) -> str:
    """Decodes a string of MQTT: UTF-8 without U+0000 (MQTT 5.0, 1.5.4)."""
    try:
        value = data.decode()
    except UnicodeDecodeError as error:
        raise MQTTError(MALFORMED, f"cannot read string: not UTF-8 ({error.reason})") from None
    if "\0" in value:
        raise MQTTError(MALFORMED, "cannot read string: it contains U+0000")
    return value


def pack_varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_binary(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise ValueError(f"cannot encode field: {len(data)} bytes are more than 65,535")
    return _PACK_U16(len(data)) + data


def pack_text(value: str) -> bytes:
    return pack_binary(value.encode())


def pack_properties(properties: Properties) -> bytes:
    """The whole block, its length included."""
    if properties is NONE:
        return b"\0"
    body = bytearray()
    present = msgspec.to_builtins(properties, builtin_types=(bytes,))  # only what is not at its default
    for field, value in present.items():
        identifier, kind = _BY_FIELD[field]
        for each in value if isinstance(value, tuple) else (value,):
            body.append(identifier)
            body += _pack(kind, each)
    return pack_varint(len(body)) + bytes(body)


def _pack(kind: str, value: Any) -> bytes:
    match kind:
        case "flag":
            return bytes((value,))
        case "u16":
            return _PACK_U16(value)
        case "u32":
            return _PACK_U32(value)
        case "varint":
            return pack_varint(value)
        case "binary":
            return pack_binary(value)
        case "text":
            return pack_text(value)
    return pack_text(value[0]) + pack_text(value[1])


def _read_property(block: Cursor, packet: str, fields: dict[str, Any]) -> None:
    identifier = block.u8()
    known = _TABLE.get(identifier)
    if known is None:
        raise MQTTError(MALFORMED, f"cannot read properties: 0x{identifier:02x} is no property")
    field, kind, packets = known
    if packet not in packets:
        raise MQTTError(PROTOCOL_ERROR, f"cannot read properties: {field} is not allowed in this packet")
    value = getattr(block, kind)()
    if value == 0 and field in _NEVER_ZERO:
        raise MQTTError(PROTOCOL_ERROR, f"cannot read properties: {field} is 0")
    if field == "user" or (field == "subscription_identifiers" and packet == "p"):
        fields[field] = (*fields.get(field, ()), value)
        return
    if field in fields:
        raise MQTTError(PROTOCOL_ERROR, f"cannot read properties: {field} occurs twice")
    fields[field] = (value,) if field == "subscription_identifiers" else value
