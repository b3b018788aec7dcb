"""The MQTT codec: bytes of the standard, both ways, cut anywhere, damaged."""

from __future__ import annotations

import contextlib
import random

import pytest

from nucleus.wire import mqtt, mqtt_packets, mqtt_properties

V4, V5 = mqtt_packets.V311, mqtt_packets.V5
FULL = mqtt_properties.Properties(
    payload_format=1,
    message_expiry_s=0,
    content_type="text/plain",
    response_topic="a/b",
    correlation_data=b"\x00\xff",
    subscription_identifiers=(1, 300),
    topic_alias=3,
    user=(("k", "v"), ("k", "ü")),
)

# The bytes were written out by hand from MQTT 3.1.1 and 5.0, chapter 3.
VECTORS: list[tuple[int, mqtt_packets.Packet, str]] = [
    (V4, mqtt_packets.Connect("a", V4, keep_alive_s=60), "100d00044d515454 04 02 003c 0001 61"),
    (
        V4,
        mqtt_packets.Connect("a", V4, False, 0, mqtt_packets.Will("w", b"x", 1, True), "u", b"p"),
        "1019 00044d515454 04 ec 0000 0001 61 0001 77 0001 78 0001 75 0001 70",
    ),
    (
        V5,
        mqtt_packets.Connect(
            "a", V5, True, 30, username="u", properties=mqtt_properties.Properties(session_expiry_s=1)
        ),
        "1016 00044d515454 05 82 001e 05 1100000001 0001 61 0001 75",
    ),
    (V4, mqtt_packets.Connack(True, 0), "2002 01 00"),
    (V5, mqtt_packets.Connack(False, 0x87, mqtt_properties.Properties(reason="no")), "2008 00 87 05 1f 0002 6e6f"),
    (V4, mqtt_packets.Publish("a/b", b"hi"), "3007 0003 612f62 6869"),
    (V4, mqtt_packets.Publish("a/b", b"hi", 1, True, True, 10), "3b09 0003 612f62 000a 6869"),
    (V5, mqtt_packets.Publish("a/b", b"hi", 1, packet_id=10), "320a 0003 612f62 000a 00 6869"),
    (V4, mqtt_packets.Puback(258), "4002 0102"),
    (V5, mqtt_packets.Puback(258, 0x87), "4003 0102 87"),
    (V4, mqtt_packets.Subscribe(1, (mqtt_packets.Request("a/#", 1),)), "8208 0001 0003 612f23 01"),
    (
        V5,
        mqtt_packets.Subscribe(
            1,
            (mqtt_packets.Request("+", 1, True, True, 2),),
            mqtt_properties.Properties(subscription_identifiers=(200,)),
        ),
        "820a 0001 03 0bc801 0001 2b 2d",
    ),
    (V4, mqtt_packets.Suback(1, (1, 0x80)), "9004 0001 01 80"),
    (V5, mqtt_packets.Suback(1, (1, 0x87)), "9005 0001 00 01 87"),
    (V4, mqtt_packets.Unsubscribe(1, ("a", "b")), "a208 0001 0001 61 0001 62"),
    (V4, mqtt_packets.Unsuback(1), "b002 0001"),
    (V5, mqtt_packets.Unsuback(1, (0, 0x11)), "b005 0001 00 00 11"),
    (V4, mqtt_packets.Pingreq(), "c000"),
    (V4, mqtt_packets.Pingresp(), "d000"),
    (V4, mqtt_packets.Disconnect(), "e000"),
    (V5, mqtt_packets.Disconnect(0x8E), "e001 8e"),
    (V5, mqtt_packets.Auth(0x18), "f001 18"),
]
ROUND_TRIPS: list[mqtt_packets.Packet] = [
    mqtt_packets.Publish("t/ü", b"\x00" * 200_000, 1, packet_id=65_535, properties=FULL),
    mqtt_packets.Publish("t", b"", properties=FULL),
    mqtt_packets.Disconnect(4, mqtt_properties.Properties(session_expiry_s=10, reason="bye")),
    mqtt_packets.Puback(1, 0x97, mqtt_properties.Properties(reason="full")),
    mqtt_packets.Connack(
        True,
        0,
        mqtt_properties.Properties(receive_maximum=100, maximum_qos=1, assigned_client_id="x", retain_available=0),
    ),
]
# Each breaks one rule; behind it the reason code the peer should get.
MALFORMED = [
    (V5, "00 00", 0x82, "type 0"),
    (V5, "52 02 0001", 0x82, "PUBREC of QoS 2"),
    (V5, "36 06 0001 61 0001 00", 0x81, "QoS 3"),
    (V5, "38 04 0001 61 00", 0x81, "DUP with QoS 0"),
    (V5, "32 06 0001 61 0000 00", 0x81, "packet identifier 0"),
    (V5, "30 03 0005 61", 0x81, "topic longer than the packet"),
    (V5, "30 05 0002 c328 00", 0x81, "topic not UTF-8"),
    (V5, "30 04 0001 00 00", 0x81, "topic with U+0000"),
    (V5, "30 05 0001 61 01 7f", 0x81, "unknown property"),
    (V5, "30 06 0001 61 02 2101", 0x82, "property of another packet"),
    (V5, "30 0e 0001 61 0a 0200000001 0200000001", 0x82, "property twice"),
    (V5, "30 07 0001 61 03 230000", 0x82, "topic alias 0"),
    (V5, "30 06 0001 61 02 0102", 0x82, "payload format 2"),
    (V5, "80 06 0001 00 0001 61", 0x81, "SUBSCRIBE with wrong flags"),
    (V5, "82 03 0001 00", 0x82, "SUBSCRIBE without a filter"),
    (V4, "82 06 0001 0001 61 04", 0x81, "options of MQTT 5 in 3.1.1"),
    (V4, "a2 02 0001", 0x82, "UNSUBSCRIBE without a filter"),
    (V4, "c0 01 00", 0x81, "PINGREQ with a body"),
    (V4, "f0 00", 0x81, "AUTH in 3.1.1"),
    (V5, "30 ff ff ff ff 01", 0x81, "length of five bytes"),
    (V5, "30 ff ff 7f", 0x95, "larger than allowed"),
    (0, "30 04 0001 61 00", 0x82, "first packet not CONNECT"),
    (0, "100d 00044d515454 03 02 003c 0001 61", 0x84, "level 3"),
    (0, "100f 00064d514973647003 02 003c 0001 61", 0x84, "MQIsdp"),
    (0, "100d 00044d515458 04 02 003c 0001 61", 0x81, "not MQTT"),
    (0, "100d 00044d515454 04 03 003c 0001 61", 0x81, "reserved flag"),
    (0, "100d 00044d515454 04 22 003c 0001 61", 0x81, "will retain without a will"),
    (0, "1010 00044d515454 04 42 003c 0001 61 0001 70", 0x81, "password without a username"),
]


def decode(data: bytes, version: int) -> list[mqtt_packets.Packet]:
    return list(mqtt.Decoder(version=version).receive(data))


@pytest.mark.parametrize(("version", "packet", "text"), VECTORS)
def test_encode_when_packet_is_in_the_standard_then_bytes_are_too(
    version: int, packet: mqtt_packets.Packet, text: str
) -> None:
    assert mqtt.encode(packet, version).hex() == text.replace(" ", "")


@pytest.mark.parametrize(("version", "packet", "text"), VECTORS)
def test_decode_when_bytes_are_in_the_standard_then_packet_is_too(
    version: int, packet: mqtt_packets.Packet, text: str
) -> None:
    assert decode(bytes.fromhex(text), version) == [packet]


@pytest.mark.parametrize("packet", ROUND_TRIPS)
def test_decode_when_packet_was_encoded_then_equal(packet: mqtt_packets.Packet) -> None:
    assert decode(mqtt.encode(packet, V5), V5) == [packet]


@pytest.mark.parametrize(("version", "text", "reason", "_why"), MALFORMED)
def test_decode_when_a_rule_is_broken_then_error_has_the_reason(
    version: int, text: str, reason: int, _why: str
) -> None:
    with pytest.raises(mqtt_properties.MQTTError) as caught:
        decode(bytes.fromhex(text), version)

    assert caught.value.reason == reason


def test_decode_when_stream_is_cut_anywhere_then_same_packets() -> None:
    packets = [packet for version, packet, _ in VECTORS if version == V5] + ROUND_TRIPS[1:]
    stream = b"".join(mqtt.encode(each, V5) for each in packets)
    chance = random.Random(1)

    for _ in range(50):
        decoder, got, at = mqtt.Decoder(version=V5), [], 0
        while at < len(stream):
            size = chance.randint(1, 40)
            got += decoder.receive(stream[at : at + size])
            at += size
        assert got == packets


def test_decode_when_a_later_packet_is_bad_then_earlier_ones_come_first() -> None:
    stream = mqtt.Decoder(version=V5).receive(bytes.fromhex("c000 c001 00"))

    assert next(stream) == mqtt_packets.Pingreq()
    with pytest.raises(mqtt_properties.MQTTError):
        next(stream)


def test_decode_when_bytes_are_random_then_only_protocol_errors() -> None:
    chance = random.Random(2)
    valid = [mqtt.encode(each, version) for version, each, _ in VECTORS]

    for _ in range(5_000):
        packet = bytearray(chance.choice(valid))
        for _ in range(chance.randint(1, 3)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        with contextlib.suppress(mqtt_properties.MQTTError):
            decode(bytes(packet), chance.choice((0, V4, V5)))


def test_encode_when_connack_refuses_in_311_then_its_own_codes() -> None:
    codes = [mqtt.encode(mqtt_packets.Connack(False, reason), V4)[3] for reason in (0x84, 0x85, 0x88, 0x86, 0x87, 0x95)]

    assert codes == [1, 2, 3, 4, 5, 5]


def test_publish_frame_when_parts_are_joined_then_equal_to_encode() -> None:
    packet = mqtt_packets.Publish("a/b", b"payload", 1, packet_id=513, properties=FULL)
    head, tail = mqtt.publish_parts(packet, V5)

    assert mqtt.publish_frame(head, 513, tail) == mqtt.encode(packet, V5)
    assert decode(mqtt.publish_frame(head, 7, tail, dup=True), V5) == [
        mqtt_packets.Publish("a/b", b"payload", 1, False, True, 7, FULL)
    ]
