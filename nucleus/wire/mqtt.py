"""MQTT 3.1.1 and 5 as bytes: a decoder that is fed what the socket gave, and `encode`. Used by both ends.

A packet is: type and flags (one byte), remaining length (variable byte integer, at most four bytes), body. The records
are in `mqtt_packets`, properties and errors in `mqtt_properties`. Source: OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nucleus.wire import mqtt_packets as packets
from nucleus.wire import mqtt_properties as properties
from nucleus.wire import mqtt_reading

_TO_V311 = {0x00: 0, 0x84: 1, 0x85: 2, 0x88: 3, 0x89: 3, 0x86: 4, 0x87: 5}
_NOT_AUTHORIZED_V311 = 5
_FAILURE_V311 = 0x80


class Decoder:
    """Cuts a stream into packets.

    `version` is 4 or 5, or 0 at the server's end until CONNECT tells it. Packets of more than `maximum_bytes` raise
    before they are held in memory.
    """

    __slots__ = ("_buffer", "_needed_bytes", "maximum_bytes", "version")

    def __init__(self, *, version: int = 0, maximum_bytes: int = 262_144) -> None:
        self.version = version
        self.maximum_bytes = maximum_bytes
        self._buffer: bytearray | None = None
        self._needed_bytes = 0

    def receive(self, data: bytes) -> Iterator[packets.Packet]:
        """Yields the packets that `data` completes; raises MQTTError at the first one that breaks the protocol."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed_bytes:
                return
            data = bytes(self._buffer)
            self._buffer = None
        at, size = 0, len(data)
        while at < size:
            start, end = self._frame(data, at)
            if end == 0 or end > size:
                self._buffer = bytearray(data[at:])
                self._needed_bytes = end - at if end else 0
                return
            yield self._read(data[at], data[start:end])
            at = end

    def _frame(self, data: bytes, at: int) -> tuple[int, int]:
        """Start and end of the body of the packet at `at`; end 0 when its length is not known yet."""
        length = 0
        for index in range(4):
            if at + 1 + index >= len(data):
                return 0, 0
            byte = data[at + 1 + index]
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                start = at + 2 + index
                if start + length - at > self.maximum_bytes:
                    raise properties.MQTTError(
                        packets.Reason.PACKET_TOO_LARGE, f"cannot read packet: more than {self.maximum_bytes} bytes"
                    )
                return start, start + length
        raise properties.MQTTError(packets.Reason.MALFORMED_PACKET, "cannot read packet: its length is not valid")

    def _read(self, first: int, body: bytes) -> packets.Packet:
        kind = first >> 4
        if self.version == 0 and kind != 1:
            raise properties.MQTTError(packets.Reason.PROTOCOL_ERROR, "cannot read packet: the first is not CONNECT")
        packet = mqtt_reading.read(kind, first & 15, body, self.version)
        if isinstance(packet, packets.Connect):
            self.version = packet.version
        return packet


def encode(packet: packets.Packet, version: int) -> bytes:
    """The bytes of one packet for a peer that speaks `version`."""
    return _WRITERS[type(packet)](packet, version)


def publish_parts(packet: packets.Publish, version: int) -> tuple[bytes, bytes]:
    """The bytes of a PUBLISH before and after its packet identifier.

    One message for many subscribers is encoded once: each gets head + its own identifier (two bytes, QoS 1) + tail.
    """
    topic = properties.pack_text(packet.topic)
    block = properties.pack_properties(packet.properties) if version == packets.V5 else b""
    size = len(topic) + (2 if packet.qos else 0) + len(block) + len(packet.payload)
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    return b"%c%b%b" % (first, properties.pack_varint(size), topic), block + packet.payload


def publish_frame(head: bytes, packet_id: int, tail: bytes, *, dup: bool = False) -> bytes:
    """Joins the parts of a PUBLISH with QoS 1."""
    if dup:
        head = bytes((head[0] | 8,)) + head[1:]
    return b"%b%c%c%b" % (head, packet_id >> 8, packet_id & 255, tail)


def puback(packet_id: int, reason: int, version: int) -> bytes:
    """A PUBACK without properties: the packet sent most often."""
    if reason == 0 or version != packets.V5:
        return b"\x40\x02%c%c" % (packet_id >> 8, packet_id & 255)
    return b"\x40\x03%c%c%c" % (packet_id >> 8, packet_id & 255, reason)


def _packet(first: int, body: bytes) -> bytes:
    return b"%c%b%b" % (first, properties.pack_varint(len(body)), body)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _publish(packet: packets.Publish, version: int) -> bytes:
    head, tail = publish_parts(packet, version)
    return publish_frame(head, packet.packet_id, tail) if packet.qos else head + tail


def _connect(packet: packets.Connect, _version: int) -> bytes:
    version = packet.version
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    body = properties.pack_text(packet.client_id)
    if packet.will is not None:
        will = packet.will
        flags |= 4 | will.qos << 3 | will.retain << 5
        body += properties.pack_properties(will.properties) if version == packets.V5 else b""
        body += properties.pack_text(will.topic) + properties.pack_binary(will.payload)
    if packet.username is not None:
        body += properties.pack_text(packet.username)
    if packet.password is not None:
        body += properties.pack_binary(packet.password)
    block = properties.pack_properties(packet.properties) if version == packets.V5 else b""
    return _packet(0x10, b"\0\x04MQTT%c%c%b%b%b" % (version, flags, _u16(packet.keep_alive_s), block, body))


def _connack(packet: packets.Connack, version: int) -> bytes:
    if version == packets.V5:
        block = properties.pack_properties(packet.properties)
        return _packet(0x20, b"%c%c%b" % (packet.session_present, packet.reason, block))
    return _packet(0x20, b"%c%c" % (packet.session_present, _TO_V311.get(packet.reason, _NOT_AUTHORIZED_V311)))


def _puback(packet: packets.Puback, version: int) -> bytes:
    return _packet(0x40, _u16(packet.packet_id) + _reason(packet, version))


def _subscribe(packet: packets.Subscribe, version: int) -> bytes:
    body = _u16(packet.packet_id)
    body += properties.pack_properties(packet.properties) if version == packets.V5 else b""
    for each in packet.requests:
        options = each.qos
        if version == packets.V5:
            options |= each.no_local << 2 | each.retain_as_published << 3 | each.retain_handling << 4
        body += properties.pack_text(each.filter) + bytes((options,))
    return _packet(0x82, body)


def _suback(packet: packets.Suback, version: int) -> bytes:
    if version == packets.V5:
        block = properties.pack_properties(packet.properties)
        return _packet(0x90, _u16(packet.packet_id) + block + bytes(packet.reasons))
    return _packet(0x90, _u16(packet.packet_id) + bytes(min(each, _FAILURE_V311) for each in packet.reasons))


def _unsubscribe(packet: packets.Unsubscribe, version: int) -> bytes:
    block = properties.pack_properties(packet.properties) if version == packets.V5 else b""
    return _packet(0xA2, _u16(packet.packet_id) + block + b"".join(map(properties.pack_text, packet.filters)))


def _unsuback(packet: packets.Unsuback, version: int) -> bytes:
    if version != packets.V5:
        return _packet(0xB0, _u16(packet.packet_id))
    block = properties.pack_properties(packet.properties)
    return _packet(0xB0, _u16(packet.packet_id) + block + bytes(packet.reasons))


def _disconnect(packet: packets.Disconnect, version: int) -> bytes:
    return _packet(0xE0, _reason(packet, version))


def _auth(packet: packets.Auth, version: int) -> bytes:
    return _packet(0xF0, _reason(packet, version))


def _reason(packet: packets.Puback | packets.Disconnect | packets.Auth, version: int) -> bytes:
    if version != packets.V5 or (packet.reason == 0 and packet.properties is properties.NONE):
        return b""
    if packet.properties is properties.NONE:
        return bytes((packet.reason,))
    return bytes((packet.reason,)) + properties.pack_properties(packet.properties)


_WRITERS: dict[type, Callable[[Any, int], bytes]] = {
    packets.Connect: _connect,
    packets.Connack: _connack,
    packets.Publish: _publish,
    packets.Puback: _puback,
    packets.Subscribe: _subscribe,
    packets.Suback: _suback,
    packets.Unsubscribe: _unsubscribe,
    packets.Unsuback: _unsuback,
    packets.Pingreq: lambda _packet, _version: b"\xc0\0",
    packets.Pingresp: lambda _packet, _version: b"\xd0\0",
    packets.Disconnect: _disconnect,
    packets.Auth: _auth,
}
