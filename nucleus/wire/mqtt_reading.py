"""Bodies of MQTT packets to records, one function per packet type (MQTT 3.1.1 and 5.0, chapter 3)."""

from __future__ import annotations

from collections.abc import Callable

from nucleus.wire import mqtt_packets as packets
from nucleus.wire import mqtt_properties as properties

_MALFORMED = packets.Reason.MALFORMED_PACKET
_PROTOCOL_ERROR = packets.Reason.PROTOCOL_ERROR
# CONNACK return codes of 3.1.1 (table 3.1) to reason codes.
_FROM_V311 = {0: 0x00, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}


def read(kind: int, flags: int, body: bytes, version: int) -> packets.Packet:
    """Turns one packet's body into its record; raises MQTTError when it breaks the protocol."""
    if kind == 3:
        return _publish(flags, body, version)
    reader = _READERS.get(kind)
    if reader is None:
        raise properties.MQTTError(
            _PROTOCOL_ERROR, f"cannot read packet: type {kind} is not used here (QoS 2 is not supported)"
        )
    expected_flags = 2 if kind in (8, 10) else 0
    if flags != expected_flags:
        raise properties.MQTTError(_MALFORMED, f"cannot read packet: reserved flags of type {kind} are {flags}")
    cursor = properties.Cursor(body)
    packet = reader(cursor, version)
    if cursor.at != cursor.end:
        raise properties.MQTTError(
            _MALFORMED, f"cannot read packet: {cursor.end - cursor.at} bytes too many in type {kind}"
        )
    return packet


def _publish(flags: int, body: bytes, version: int) -> packets.Publish:
    qos = flags >> 1 & 3
    if qos == 3 or (qos == 0 and flags & 8):
        raise properties.MQTTError(_MALFORMED, "cannot read PUBLISH: its flags are not valid")
    if len(body) < 2:
        raise properties.MQTTError(_MALFORMED, "cannot read PUBLISH: it is too short")
    at = 2 + (body[0] << 8 | body[1])
    topic = properties.text(body[2:at])
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
        if packet_id == 0:
            raise properties.MQTTError(_MALFORMED, "cannot read PUBLISH: packet identifier 0")
    if at > len(body):
        raise properties.MQTTError(_MALFORMED, "cannot read PUBLISH: it ends in the middle of a field")
    block = properties.NONE
    if version == packets.V5:
        cursor = properties.Cursor(body, at)
        block = cursor.properties("p")
        at = cursor.at
    return packets.Publish(topic, body[at:], qos, flags & 1 == 1, flags & 8 == 8, packet_id, block)


def _connect(cursor: properties.Cursor, _version: int) -> packets.Connect:
    version = _protocol(cursor)
    flags = cursor.u8()
    if flags & 1:
        raise properties.MQTTError(_MALFORMED, "cannot read CONNECT: its reserved flag is set")
    keep_alive_s = cursor.u16()
    block = cursor.properties("c") if version == packets.V5 else properties.NONE
    client_id = cursor.text()
    will = _will(cursor, flags, version)
    username = cursor.text() if flags & 0x80 else None
    password = cursor.binary() if flags & 0x40 else None
    if version == packets.V311 and flags & 0x40 and not flags & 0x80:
        raise properties.MQTTError(_MALFORMED, "cannot read CONNECT: a password without a username")
    return packets.Connect(client_id, version, flags & 2 == 2, keep_alive_s, will, username, password, block)


def _protocol(cursor: properties.Cursor) -> int:
    name = cursor.binary()
    if name not in (b"MQTT", b"MQIsdp"):
        raise properties.MQTTError(_MALFORMED, "cannot read CONNECT: the protocol is not MQTT")
    version = cursor.u8()
    if name != b"MQTT" or version not in (packets.V311, packets.V5):
        raise properties.MQTTError(
            packets.Reason.UNSUPPORTED_VERSION, f"cannot read CONNECT: MQTT level {version} is not 4 or 5"
        )
    return version


def _will(cursor: properties.Cursor, flags: int, version: int) -> packets.Will | None:
    qos = flags >> 3 & 3
    if not flags & 4:
        if flags & 0x38:
            raise properties.MQTTError(_MALFORMED, "cannot read CONNECT: will flags without a will")
        return None
    if qos == 3:
        raise properties.MQTTError(_MALFORMED, "cannot read CONNECT: will QoS 3")
    block = cursor.properties("w") if version == packets.V5 else properties.NONE
    return packets.Will(cursor.text(), cursor.binary(), qos, flags & 0x20 == 0x20, block)


def _connack(cursor: properties.Cursor, version: int) -> packets.Connack:
    flags, code = cursor.u8(), cursor.u8()
    if flags > 1:
        raise properties.MQTTError(_MALFORMED, "cannot read CONNACK: reserved flags are set")
    if version == packets.V5:
        return packets.Connack(flags == 1, code, cursor.properties("C"))
    return packets.Connack(flags == 1, _FROM_V311.get(code, packets.Reason.UNSPECIFIED))


def _puback(cursor: properties.Cursor, version: int) -> packets.Puback:
    packet_id = _packet_id(cursor)
    reason, block = _reason(cursor, version, "a")
    return packets.Puback(packet_id, reason, block)


def _subscribe(cursor: properties.Cursor, version: int) -> packets.Subscribe:
    packet_id = _packet_id(cursor)
    block = cursor.properties("s") if version == packets.V5 else properties.NONE
    requests = []
    while cursor.at < cursor.end:
        requests.append(_request(cursor.text(), cursor.u8(), version))
    if not requests:
        raise properties.MQTTError(_PROTOCOL_ERROR, "cannot read SUBSCRIBE: it names no filter")
    return packets.Subscribe(packet_id, tuple(requests), block)


def _request(topic_filter: str, options: int, version: int) -> packets.Request:
    reserved = 0xC0 if version == packets.V5 else 0xFC
    if options & reserved or options & 3 == 3 or options & 0x30 == 0x30:
        raise properties.MQTTError(_MALFORMED, f"cannot read SUBSCRIBE: options 0x{options:02x} are not valid")
    return packets.Request(topic_filter, options & 3, options & 4 == 4, options & 8 == 8, options >> 4 & 3)


def _suback(cursor: properties.Cursor, version: int) -> packets.Suback:
    packet_id = _packet_id(cursor)
    block = cursor.properties("S") if version == packets.V5 else properties.NONE
    return packets.Suback(packet_id, tuple(cursor.rest()), block)


def _unsubscribe(cursor: properties.Cursor, version: int) -> packets.Unsubscribe:
    packet_id = _packet_id(cursor)
    block = cursor.properties("u") if version == packets.V5 else properties.NONE
    filters = []
    while cursor.at < cursor.end:
        filters.append(cursor.text())
    if not filters:
        raise properties.MQTTError(_PROTOCOL_ERROR, "cannot read UNSUBSCRIBE: it names no filter")
    return packets.Unsubscribe(packet_id, tuple(filters), block)


def _unsuback(cursor: properties.Cursor, version: int) -> packets.Unsuback:
    packet_id = _packet_id(cursor)
    if version == packets.V311:
        return packets.Unsuback(packet_id)
    block = cursor.properties("U")
    return packets.Unsuback(packet_id, tuple(cursor.rest()), block)


def _disconnect(cursor: properties.Cursor, version: int) -> packets.Disconnect:
    return packets.Disconnect(*_reason(cursor, version, "d"))


def _auth(cursor: properties.Cursor, version: int) -> packets.Auth:
    if version != packets.V5:
        raise properties.MQTTError(_MALFORMED, "cannot read packet: AUTH exists only in MQTT 5")
    return packets.Auth(*_reason(cursor, version, "A"))


def _reason(cursor: properties.Cursor, version: int, packet: str) -> tuple[int, properties.Properties]:
    """The reason and properties of MQTT 5; either may be left out at the end of a packet."""
    if version != packets.V5 or cursor.at == cursor.end:
        return 0, properties.NONE
    reason = cursor.u8()
    return reason, cursor.properties(packet) if cursor.at < cursor.end else properties.NONE


def _packet_id(cursor: properties.Cursor) -> int:
    packet_id = cursor.u16()
    if packet_id == 0:
        raise properties.MQTTError(_MALFORMED, "cannot read packet: packet identifier 0")
    return packet_id


_READERS: dict[int, Callable[[properties.Cursor, int], packets.Packet]] = {
    1: _connect,
    2: _connack,
    4: _puback,
    8: _subscribe,
    9: _suback,
    10: _unsubscribe,
    11: _unsuback,
    12: lambda _cursor, _version: packets.Pingreq(),
    13: lambda _cursor, _version: packets.Pingresp(),
    14: _disconnect,
    15: _auth,
}
