"""Who gets in, and what they may do there: certificates, client ids, policies, the service's own topics, broken bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Iterator

import pytest
from awscrt import mqtt5

from nucleus.wire import mqtt, mqtt_packets, mqtt_properties
from tests.cloud import certificates
from tests.cloud.mqtt import clients, harness

NOT_AUTHORIZED = 0x87


async def test_publish_when_topic_is_anothers_then_mqtt5_is_told_and_goes_on(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()

    denied = await device.publish("$aws/things/two/jobs/x/update", b"{}")
    allowed = await device.publish("$aws/things/one/jobs/x/update", b"{}")

    assert denied == mqtt5.PubackReasonCode.NOT_AUTHORIZED
    assert allowed == mqtt5.PubackReasonCode.SUCCESS
    assert not device.disconnects


async def test_publish_when_topic_is_anothers_then_mqtt311_is_disconnected(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.paho(pair, "one")
    await device.connect()

    device.publish("$aws/things/two/jobs/x/update", b"{}")

    await clients.until(lambda: device.disconnected, "disconnection")


async def test_publish_when_qos_0_is_denied_then_mqtt5_is_disconnected_with_the_reason(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()

    await device.publish("$aws/things/two/jobs/x/update", b"{}", qos=0)

    await clients.until(lambda: device.disconnects, "DISCONNECT")
    device.stop()
    assert device.disconnects[0] is not None
    assert device.disconnects[0].reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize("filters", ["$aws/things/+/jobs/#", "$aws/things/two/jobs/#", "#", "$share/g/$aws/#"])
async def test_subscribe_when_filter_is_wider_than_the_grant_then_refused(bench: harness.Bench, filters: str) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()

    reasons = await device.subscribe(filters, "$aws/things/one/jobs/#")

    assert reasons == [mqtt5.SubackReasonCode.NOT_AUTHORIZED, mqtt5.SubackReasonCode.GRANTED_QOS_1]


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/one/jobs/notify",
        "$aws/things/one/jobs/x/update/accepted",
        "$aws/things/one/shadow/name/AWSManagedGreengrassV2Deployment/update/delta",
        "$aws/events/presence/connected/one",
        "$marram/broker/kick",
    ],
)
async def test_publish_when_topic_is_the_services_then_denied_whatever_the_policy_says(
    bench: harness.Bench, topic: str
) -> None:
    operator = bench.crt(bench.device(policies=("operator",)), "operator")
    await bench.push()
    await operator.connect()

    assert await operator.publish(topic, b"operator") == mqtt5.PubackReasonCode.NOT_AUTHORIZED


async def test_connect_when_certificate_becomes_known_within_two_seconds_then_accepted(bench: harness.Bench) -> None:
    pair = bench.device("one")
    device = bench.crt(pair, "one")
    device.start()
    await clients.until(lambda: device.attempts, "an attempt")
    await bench.push()

    await clients.until(lambda: device.connacks, "CONNACK")

    assert not device.failures


async def test_connect_when_certificate_stays_unknown_then_refused(bench: harness.Bench) -> None:
    device = bench.crt(bench.device("one"), "one")

    failure = await device.refused()

    assert failure.connack_packet is not None
    assert failure.connack_packet.reason_code == mqtt5.ConnectReasonCode.NOT_AUTHORIZED
    assert failure.connack_packet.reason_string == "the certificate is not known"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"active": False}, "the certificate is not active"),
        ({"not_after_ms": 1_000}, "the certificate has expired"),
    ],
)
async def test_connect_when_certificates_record_is_not_good_then_refused(
    bench: harness.Bench, record: dict[str, int], why: str
) -> None:
    pair = bench.device("one", **record)
    await bench.push()

    failure = await bench.crt(pair, "one").refused()

    assert failure.connack_packet is not None
    assert failure.connack_packet.reason_string == why


@pytest.mark.parametrize("kind", ["expired", "foreign"])
async def test_connect_when_certificate_is_expired_or_foreign_then_tls_refuses(bench: harness.Bench, kind: str) -> None:
    other = certificates.Authority(bench.directory / "other")
    pair = bench.authority.device("old", expired=True) if kind == "expired" else other.device("foreign")

    failure = await bench.crt(pair, "one").refused()

    assert failure.connack_packet is None


@pytest.mark.parametrize("client_id", ["two", "oneandmore", "one#", "one#a/b", "$service"])
async def test_connect_when_client_id_is_not_the_things_then_refused(bench: harness.Bench, client_id: str) -> None:
    pair = bench.device("one")
    await bench.push()

    failure = await bench.crt(pair, client_id).refused()

    assert failure.connack_packet is not None


async def test_connect_when_no_policy_allows_it_then_refused(bench: harness.Bench) -> None:
    pair = bench.device("one", policies=())
    await bench.push()

    assert await bench.paho(pair, "one").connect() == NOT_AUTHORIZED


async def test_snapshot_when_certificate_is_deactivated_then_live_connection_ends(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()

    bench.principals[pair.fingerprint] = harness.record("one", active=False)
    await bench.push()

    await clients.until(lambda: device.disconnects, "DISCONNECT")
    device.stop()


async def test_snapshot_when_policy_is_taken_away_then_live_connection_loses_the_right(bench: harness.Bench) -> None:
    pair = bench.device("one", policies=("device", "operator"))
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()
    before = await device.publish("else/where", b"")

    bench.principals[pair.fingerprint] = harness.record("one")
    await bench.push()

    assert before == mqtt5.PubackReasonCode.SUCCESS
    assert await device.publish("else/where", b"") == mqtt5.PubackReasonCode.NOT_AUTHORIZED


async def test_bytes_when_packets_are_damaged_then_broker_lives_and_others_are_undisturbed(
    bench: harness.Bench,
) -> None:
    pair, hostile = bench.device("one"), bench.device("two")
    await bench.push()
    bystander = bench.crt(pair, "one")
    await bystander.connect()
    await bystander.subscribe("shared/safe")
    pid = bench.broker_pid()
    mutants = iter(enumerate(_mutants(2_000)))

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(_throw(bench.number, bench.raw_context(hostile), mutants))
    await bystander.publish("shared/safe", b"still here")

    assert ("shared/safe", b"still here") in await bystander.heard(1)
    assert not bystander.disconnects
    assert bench.broker_pid() == pid
    assert not [line for line in bench.events.lines if "Traceback" in line]


async def _throw(number: int, context: ssl.SSLContext, mutants: Iterator[tuple[int, bytes]]) -> None:
    """A connection per damaged packet, which follows a good CONNECT in three of four cases; a second goes behind it."""
    for index, mutant in mutants:
        reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=context, server_hostname="localhost")
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            if index % 4:
                writer.write(mqtt.encode(mqtt_packets.Connect(f"two#{index % 20}", 4 + index % 2), 4 + index % 2))
                await reader.readexactly(4)
            writer.write(mutant)
            writer.write(mqtt.encode(mqtt_packets.Pingreq(), 5))
            await writer.drain()
            await asyncio.wait_for(reader.read(), 0.02)  # until the broker closes, or is content
        writer.transport.abort()


def _mutants(count: int) -> list[bytes]:
    """Valid packets with bytes changed, cut, doubled; the seed is fixed."""
    chance = random.Random(20)
    properties = mqtt_properties.Properties(user=(("k", "v"),), content_type="x", message_expiry_s=3)
    originals = [
        mqtt.encode(each, mqtt_packets.V5)
        for each in (
            mqtt_packets.Connect("two", keep_alive_s=30, will=mqtt_packets.Will("shared/w", b"w"), username="u"),
            mqtt_packets.Publish("shared/x", b"payload", 1, packet_id=7, properties=properties),
            mqtt_packets.Publish("shared/x", b"payload", properties=mqtt_properties.Properties(topic_alias=2)),
            mqtt_packets.Subscribe(3, (mqtt_packets.Request("shared/#", 1), mqtt_packets.Request("$share/g/shared/+"))),
            mqtt_packets.Unsubscribe(4, ("shared/#", "a/b")),
            mqtt_packets.Puback(9, 0x10),
            mqtt_packets.Disconnect(4, mqtt_properties.Properties(session_expiry_s=10)),
            mqtt_packets.Pingreq(),
        )
    ]
    return [_mutate(chance, bytearray(chance.choice(originals))) for _ in range(count)]


def _mutate(chance: random.Random, packet: bytearray) -> bytes:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(packet)) if packet else 0
        match chance.randrange(4):
            case 0 if packet:
                packet[at] = chance.randrange(256)
            case 1 if packet:
                del packet[at : at + chance.randint(1, 8)]
            case 2:
                packet[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
            case _:
                packet += packet[: chance.randint(0, len(packet))]
    return bytes(packet)
