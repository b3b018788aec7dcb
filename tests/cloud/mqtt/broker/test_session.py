"""Bounds of a session: window, queue, slow readers, publishers that are slowed down."""

from __future__ import annotations

from cloud.mqtt.broker import limits, link
from nucleus.wire import mqtt_packets, mqtt_properties
from tests.cloud.mqtt.broker import table as tables


def test_window_when_client_acknowledges_nothing_then_no_more_than_its_receive_maximum(table: tables.Table) -> None:
    reader = table.operator("reader", properties=mqtt_properties.Properties(receive_maximum=3))
    reader.subscribe("a")
    publisher = table.operator("publisher")

    for _ in range(10):
        publisher.publish("a")

    assert len(list(tables.published(reader.hear()))) == 3
    assert len(reader.acknowledge()) == 0
    assert table.router.sessions["reader"].queued_bytes > 0


def test_queue_when_full_then_newest_is_dropped_and_publisher_gets_its_puback(table: tables.Table) -> None:
    reader = table.operator("reader", properties=mqtt_properties.Properties(receive_maximum=1))
    reader.subscribe("a")
    table.tick(5)  # no progress: nobody is slowed down
    publisher = table.operator("publisher")

    answers = [publisher.publish("a") for _ in range(limits.DEVICE.queue_messages + 5)]

    assert all(each == [mqtt_packets.Puback(1)] for each in answers)
    assert publisher.reading
    assert table.around.counters.dropped_queue_full == 5


def test_queue_when_bytes_are_too_many_then_dropped(table: tables.Table) -> None:
    reader = table.operator("reader", properties=tables.persistent())
    reader.subscribe("a")
    reader.say(mqtt_packets.Disconnect())
    publisher = table.operator("publisher")

    for _ in range(40):
        publisher.publish("a", b"x" * 131_000, packet_id=1)

    assert table.around.counters.dropped_queue_full == 40 - limits.DEVICE.queue_bytes // 131_201
    assert table.around.counters.queued_bytes <= limits.DEVICE.queue_bytes


def test_publisher_when_subscriber_makes_progress_but_lags_then_not_read_from_until_it_caught_up(
    table: tables.Table,
) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    publisher = table.operator("publisher")
    while publisher.reading:
        publisher.publish("a")
    queued = len(table.router.sessions["reader"].queue)

    reader.acknowledge()

    assert queued == limits.DEVICE.queue_messages // 2 + 1
    assert publisher.reading


def test_publisher_when_subscriber_stands_still_then_released(table: tables.Table) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    publisher = table.operator("publisher")
    while publisher.reading:
        publisher.publish("a")

    table.tick(3)

    assert publisher.reading


def test_publisher_when_subscriber_leaves_then_released(table: tables.Table) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    publisher = table.operator("publisher")
    while publisher.reading:
        publisher.publish("a")

    table.router.detach(reader.link, "CONNECTION_LOST")

    assert publisher.reading


def test_offer_when_socket_is_full_then_qos_0_is_dropped_and_counted(table: tables.Table) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    reader.link.writable = False

    table.operator("publisher").publish("a", qos=0)

    assert not reader.link.output
    assert table.around.counters.dropped_not_writable == 1


def test_send_when_output_of_one_turn_is_too_much_then_link_is_not_writable(table: tables.Table) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    publisher = table.operator("publisher")

    for _ in range(3):
        publisher.publish("a", b"x" * 100_000, qos=0)

    assert len(reader.link.output) == 2
    assert table.around.counters.dropped_not_writable == 1


def test_deliver_when_packet_is_larger_than_the_client_takes_then_dropped(table: tables.Table) -> None:
    reader = table.operator("reader", properties=mqtt_properties.Properties(maximum_packet_bytes=100))
    reader.subscribe("a")
    publisher = table.operator("publisher")

    publisher.publish("a", b"x" * 200)
    publisher.publish("a", b"x")

    assert [each.payload for each in tables.published(reader.hear())] == [b"x"]
    assert table.around.counters.dropped_too_large == 1


def test_receive_when_policy_does_not_allow_it_then_message_is_not_delivered(table: tables.Table) -> None:
    device = table.device("one")
    device.subscribe("shared/#")
    table.operator("op").publish("shared", b"the parent is matched but not granted")

    assert not list(tables.published(device.hear()))
    assert table.around.counters.dropped_denied == 1


def test_idle_link_when_made_then_it_costs_little(table: tables.Table) -> None:
    client = table.operator("op")

    assert isinstance(client.link, link.Link)
    assert client.link.receipts is None
    assert client.link.aliases is None
