"""The embedded broker under clients of other makers, over mutual TLS."""

from __future__ import annotations

from awscrt import mqtt5

from tests.cloud.mqtt import harness


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
