"""A client that stops reading, over a real socket: it costs the others nothing and goes on where it stopped."""

from __future__ import annotations

import asyncio

from nucleus.wire import mqtt, mqtt_packets, mqtt_properties
from tests.cloud.mqtt import harness

LARGE = b"x" * 100_000


async def test_reader_when_it_stops_reading_then_others_go_on_and_it_catches_up(bench: harness.Bench) -> None:
    pair, other = bench.device("one"), bench.device("two")
    await bench.push()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", bench.number, ssl=bench.raw_context(pair), server_hostname="localhost", limit=1_000
    )
    bystander = bench.crt(other, "two")
    await bystander.connect()
    await bystander.subscribe("shared/small")
    properties = mqtt_properties.Properties(receive_maximum=1_000)
    writer.write(mqtt.encode(mqtt_packets.Connect("one", properties=properties), mqtt_packets.V5))
    writer.write(mqtt.encode(mqtt_packets.Subscribe(1, (mqtt_packets.Request("shared/large", 1),)), mqtt_packets.V5))
    decoder = mqtt.Decoder(version=mqtt_packets.V5)
    answers: list[mqtt_packets.Packet] = []
    while len(answers) < 2:
        answers += decoder.receive(await reader.read(1_000))

    for _ in range(30):
        await bench.port.publish("shared/large", LARGE)
    await bench.port.publish("shared/small", b"1")
    await bystander.heard(1)
    got = 0
    while got < 30:
        for packet in decoder.receive(await reader.read(65_536)):
            assert isinstance(packet, mqtt_packets.Publish)
            got += packet.payload == LARGE
            writer.write(mqtt.puback(packet.packet_id, 0, mqtt_packets.V5))

    assert (await bench.statistics())["dropped_queue_full"] == 0
    writer.transport.abort()
