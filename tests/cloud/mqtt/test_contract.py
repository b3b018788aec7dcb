"""The embedded broker under clients of other makers, over mutual TLS: messages, sessions, wills, retained messages."""

from __future__ import annotations

import asyncio

import msgspec
from awscrt import mqtt5

from tests.cloud.mqtt import clients, harness

JOBS = "$aws/things/one/jobs/notify"


async def test_publish_when_topic_is_aws_shaped_then_service_hears_who_said_it(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    connack = await device.connect()

    reason = await device.publish("$aws/things/one/jobs/$next/get", b"{}")

    messages = bench.port.inbound
    presence = await anext(messages)
    presence.done()
    request = await anext(messages)
    request.done()
    assert connack.maximum_qos == mqtt5.QoS.AT_LEAST_ONCE
    assert presence.topic == "$aws/events/presence/connected/one"
    assert reason == mqtt5.PubackReasonCode.SUCCESS
    assert (request.topic, request.payload) == ("$aws/things/one/jobs/$next/get", b"{}")
    assert (request.client_id, request.principal) == ("one", pair.fingerprint)


async def test_presence_when_device_leaves_then_event_has_awss_shape(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()
    await device.leave()

    messages = bench.port.inbound
    events = [msgspec.json.decode((await anext(messages)).payload) for _ in range(2)]

    assert [each["eventType"] for each in events] == ["connected", "disconnected"]
    assert events[0]["sessionIdentifier"] == events[1]["sessionIdentifier"]
    assert events[1]["clientInitiatedDisconnect"] is True
    assert events[1]["principalIdentifier"] == pair.fingerprint


async def test_publish_when_versions_differ_then_each_hears_the_other(bench: harness.Bench) -> None:
    old = bench.paho(bench.device("one"), "one")
    new = bench.crt(bench.device("two"), "two")
    await bench.push()
    await old.connect()
    await new.connect()
    assert await old.subscribe("shared/#") == [1]
    assert await new.subscribe("shared/+/b") == [mqtt5.SubackReasonCode.GRANTED_QOS_1]

    await new.publish("shared/a", b"new", user_properties=[mqtt5.UserProperty("k", "v")])
    await asyncio.to_thread(old.publish("shared/a/b", b"x" * 131_072).wait_for_publish, 10)

    assert await old.heard(2) == [("shared/a", b"new", False), ("shared/a/b", b"x" * 131_072, False)]
    assert await new.heard(1) == [("shared/a/b", b"x" * 131_072)]


async def test_publish_when_properties_are_given_then_subscriber_gets_them(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()
    await device.subscribe("shared/x")

    await device.publish(
        "shared/x",
        b"1",
        content_type="text/plain",
        response_topic="shared/y",
        correlation_data=b"\x00\x01",
        message_expiry_interval_sec=100,
        user_properties=[mqtt5.UserProperty("a", "1"), mqtt5.UserProperty("a", "2")],
    )
    await device.heard(1)

    got = device.received[0]
    assert (got.content_type, got.response_topic, got.correlation_data_bytes) == ("text/plain", "shared/y", b"\x00\x01")
    assert got.message_expiry_interval_sec in (99, 100)
    assert [(each.name, each.value) for each in got.user_properties or []] == [("a", "1"), ("a", "2")]


async def test_session_when_broker_is_killed_then_queue_and_subscriptions_survive(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    first = bench.crt(pair, "one", expiry_s=3600)
    await first.connect()
    await first.subscribe("$aws/things/one/jobs/#")
    await first.leave()
    for index in range(10):
        await bench.port.publish(JOBS, b"%d" % index)

    await bench.kill_broker()
    again = bench.crt(pair, "one", expiry_s=3600)
    connack = await again.connect()
    await bench.port.publish(JOBS, b"last")

    assert connack.session_present
    assert await again.heard(11) == [(JOBS, b"%d" % index) for index in range(10)] + [(JOBS, b"last")]


async def test_session_when_broker_is_killed_under_a_live_client_then_it_goes_on(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one", expiry_s=3600)
    await device.connect()
    await device.subscribe("$aws/things/one/jobs/#")

    await bench.kill_broker()
    await bench.port.publish(JOBS, b"after")

    assert await device.heard(1) == [(JOBS, b"after")]


async def test_session_when_paho_comes_back_without_clean_session_then_hears_what_it_missed(
    bench: harness.Bench,
) -> None:
    pair = bench.device("one")
    await bench.push()
    first = bench.paho(pair, "one", clean=False)
    await first.connect()
    await first.subscribe("shared/#")
    first.stop()
    await bench.inbound("$aws/events/presence/disconnected/one")
    await bench.port.publish("shared/x", b"missed")

    again = bench.paho(pair, "one", clean=False)
    await again.connect()

    assert await again.heard(1) == [("shared/x", b"missed", False)]


async def test_inbound_when_service_has_not_said_done_then_hears_it_again_after_a_restart(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()
    await device.publish("$aws/things/one/jobs/$next/get", b"{}")

    first = await bench.inbound("$aws/things/one/jobs/$next/get")
    await bench.kill_broker()
    again = await bench.inbound("$aws/things/one/jobs/$next/get")

    assert again.payload == first.payload == b"{}"


async def test_connect_when_id_is_in_use_then_old_one_is_told_and_its_will_is_sent(bench: harness.Bench) -> None:
    pair = bench.device("one")
    watcher = bench.crt(bench.device("two"), "two")
    await bench.push()
    await watcher.connect()
    await watcher.subscribe("shared/will")
    will = mqtt5.PublishPacket(topic="shared/will", payload=b"gone", qos=mqtt5.QoS.AT_LEAST_ONCE)
    first = bench.crt(pair, "one", will=will)
    await first.connect()

    second = bench.paho(pair, "one")
    await second.connect()

    await clients.until(lambda: first.disconnects, "DISCONNECT")
    first.stop()
    assert first.disconnects[0] is not None
    assert first.disconnects[0].reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
    assert (await watcher.heard(1))[0] == ("shared/will", b"gone")


async def test_connect_when_id_has_a_number_then_both_connections_live(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    first, second = bench.crt(pair, "one"), bench.crt(pair, "one#2")

    await first.connect()
    await second.connect()
    await first.subscribe("shared/x")
    await second.publish("shared/x", b"1")

    assert await first.heard(1) == [("shared/x", b"1")]


async def test_will_when_connection_breaks_then_it_is_sent_and_not_after_a_goodbye(bench: harness.Bench) -> None:
    watcher = bench.crt(bench.device("two"), "two")
    pair = bench.device("one")
    await bench.push()
    await watcher.connect()
    await watcher.subscribe("shared/will")
    polite = bench.paho(pair, "one#2")
    polite.will("shared/will", b"polite")
    await polite.connect()
    polite.stop()
    broken = bench.paho(pair, "one")
    broken.will("shared/will", b"broken")
    await broken.connect()

    broken.cut()

    assert await watcher.heard(1) == [("shared/will", b"broken")]


async def test_retained_when_set_and_cleared_then_new_subscribers_see_it_and_not(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()
    await device.publish("shared/kept", b"1", retain=True)
    await device.publish("shared/cleared", b"1", retain=True)
    await device.publish("shared/cleared", b"", retain=True)

    await bench.kill_broker()
    late = bench.paho(pair, "one#2")
    await late.connect()
    await late.subscribe("shared/+")
    await bench.port.publish("shared/end", b"")

    assert await late.heard(2) == [("shared/kept", b"1", True), ("shared/end", b"", False)]


async def test_subscribe_when_filter_is_shared_then_each_message_goes_to_one(bench: harness.Bench) -> None:
    pair = bench.device(policies=("operator",))
    await bench.push()
    workers = [bench.crt(pair, f"worker-{index}") for index in range(2)]
    for each in workers:
        await each.connect()
        await each.subscribe("$share/group/$aws/things/+/x")

    for index in range(20):
        await bench.port.publish("$aws/things/one/x", b"%d" % index)

    await clients.until(lambda: sum(len(each.received) for each in workers) == 20, "20 messages")
    assert [len(each.received) for each in workers] == [10, 10]


async def test_subscribe_when_filter_is_a_bare_wildcard_then_reserved_topics_are_hidden(bench: harness.Bench) -> None:
    pair = bench.device(policies=("operator",))
    await bench.push()
    operator = bench.crt(pair, "operator")
    await operator.connect()
    await operator.subscribe("#", "+/things/one/x")

    await bench.port.publish("$aws/things/one/x", b"hidden")
    await bench.port.publish("plain", b"seen")

    assert await operator.heard(1) == [("plain", b"seen")]


async def test_queue_when_offline_session_is_full_then_newest_are_dropped_and_counted(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    first = bench.crt(pair, "one", expiry_s=3600)
    await first.connect()
    await first.subscribe("shared/#")
    await first.leave()

    async with asyncio.TaskGroup() as group:
        for index in range(1_050):
            group.create_task(bench.port.publish("shared/x", b"%d" % index))
    again = bench.crt(pair, "one", expiry_s=3600)
    await again.connect()

    assert await again.heard(1_000) == [("shared/x", b"%d" % index) for index in range(1_000)]
    assert (await bench.statistics())["dropped_queue_full"] == 50


async def test_kick_when_asked_then_client_is_disconnected_with_the_reason(bench: harness.Bench) -> None:
    pair = bench.device("one")
    await bench.push()
    device = bench.crt(pair, "one")
    await device.connect()

    await bench.port.kick("one")

    await clients.until(lambda: device.disconnects, "DISCONNECT")
    device.stop()
    assert device.disconnects[0] is not None
    assert device.disconnects[0].reason_code == mqtt5.DisconnectReasonCode.ADMINISTRATIVE_ACTION
