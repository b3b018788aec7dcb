"""The rules of MQTT and of AWS IoT at the broker, packet by packet, without sockets."""

from __future__ import annotations

import pytest

from cloud.mqtt.broker import limits
from nucleus.wire import mqtt_packets, mqtt_properties
from tests.cloud.mqtt.broker import table as tables

Reason = mqtt_packets.Reason
Properties = mqtt_properties.Properties


def test_connect_when_mqtt5_then_bounds_are_announced(table: tables.Table) -> None:
    client = tables.Client(table, tables.OPERATOR, limits.DEVICE)

    agreed = client.connect("", keep_alive_s=65_535, properties=Properties(session_expiry_s=0xFFFFFFFF)).properties

    assert agreed.server_keep_alive_s == 1_200
    assert agreed.session_expiry_s == 604_800
    assert (agreed.receive_maximum, agreed.maximum_qos, agreed.maximum_packet_bytes) == (100, 1, 262_144)
    assert agreed.assigned_client_id


def test_connect_when_packet_comes_first_or_twice_then_closed(table: tables.Table) -> None:
    early = tables.Client(table, tables.OPERATOR, limits.DEVICE)
    twice = table.operator("op")

    early.say(mqtt_packets.Pingreq())
    said = twice.say(mqtt_packets.Connect("op"))

    assert early.closed
    assert said == [mqtt_packets.Disconnect(Reason.PROTOCOL_ERROR)]


def test_connect_when_will_is_not_allowed_then_refused(table: tables.Table) -> None:
    client = tables.Client(table, tables.DEVICE, limits.DEVICE)

    answer = client.connect("one", will=mqtt_packets.Will("$aws/things/two/x", b""))

    assert answer.reason == Reason.NOT_AUTHORIZED
    assert client.closed


def test_connect_when_enhanced_authentication_is_wanted_then_refused(table: tables.Table) -> None:
    client = tables.Client(table, tables.OPERATOR, limits.DEVICE)

    answer = client.connect("op", properties=Properties(authentication_method="SCRAM"))

    assert answer.reason == Reason.BAD_AUTHENTICATION_METHOD


def test_connect_when_messages_wait_then_connack_comes_first(table: tables.Table) -> None:
    watcher = table.operator("watcher", properties=tables.persistent())
    watcher.subscribe("$aws/events/presence/#")
    watcher.say(mqtt_packets.Disconnect())

    again = tables.Client(table, tables.OPERATOR, limits.DEVICE)
    again.connect("watcher", clean_start=False, properties=tables.persistent())

    assert isinstance(again.said[0], mqtt_packets.Connack)
    assert again.said[1:]


def test_connect_when_broker_has_all_the_sessions_it_may_then_refused(table: tables.Table) -> None:
    table.around.totals = limits.Totals(sessions=1)
    table.operator("first")
    client = tables.Client(table, tables.OPERATOR, limits.DEVICE)

    assert client.connect("second").reason == Reason.QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (mqtt_packets.Publish("a/b", b"", 2, packet_id=1), Reason.QOS_NOT_SUPPORTED),
        (mqtt_packets.Publish("a/b", b"x" * 131_073), Reason.PACKET_TOO_LARGE),
        (mqtt_packets.Publish("a/+", b""), Reason.TOPIC_NAME_INVALID),
        (mqtt_packets.Publish("", b""), Reason.TOPIC_NAME_INVALID),
        (mqtt_packets.Publish("a/b/c/d/e/f/g/h/i", b""), Reason.TOPIC_NAME_INVALID),
        (mqtt_packets.Publish("a", b"", properties=Properties(topic_alias=9)), Reason.TOPIC_ALIAS_INVALID),
        (mqtt_packets.Publish("", b"", properties=Properties(topic_alias=1)), Reason.TOPIC_NAME_INVALID),
        (mqtt_packets.Subscribe(1, (mqtt_packets.Request("a"),) * 9), Reason.QUOTA_EXCEEDED),
        (mqtt_packets.Subscribe(1, (mqtt_packets.Request("$share/g/a", no_local=True),)), Reason.PROTOCOL_ERROR),
        (mqtt_packets.Auth(), Reason.PROTOCOL_ERROR),
        (mqtt_packets.Pingresp(), Reason.PROTOCOL_ERROR),
    ],
)
def test_packet_when_it_breaks_a_rule_then_disconnected_with_the_reason(
    table: tables.Table, packet: mqtt_packets.Packet, reason: int
) -> None:
    client = table.operator("op")

    assert client.say(packet) == [mqtt_packets.Disconnect(reason)]
    assert client.closed


def test_publish_when_alias_is_known_then_topic_is_the_one_named_before(table: tables.Table) -> None:
    client = table.operator("op")
    client.subscribe("a/b")

    client.publish("a/b", b"1", qos=0, properties=Properties(topic_alias=1))
    client.publish("", b"2", qos=0, properties=Properties(topic_alias=1))

    assert [(each.topic, each.payload) for each in tables.published(client.said)] == [("a/b", b"1"), ("a/b", b"2")]
    assert all(each.properties.topic_alias is None for each in tables.published(client.said))


def test_publish_when_receive_maximum_is_exceeded_then_disconnected(table: tables.Table) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a")
    eager = table.operator("eager")

    for index in range(101):
        eager.publish("a", packet_id=index + 1)

    assert eager.said[-1] == mqtt_packets.Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)


async def test_publish_when_subscriber_is_persistent_then_puback_comes_after_the_commit(table: tables.Table) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a")
    keeper.link.in_flight = 0
    publisher = table.operator("publisher")

    before = publisher.publish("a")
    await table.commit()

    assert before == []
    assert publisher.hear() == [mqtt_packets.Puback(1)]


def test_publish_when_subscriber_acknowledges_at_once_then_puback_needs_no_commit(table: tables.Table) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a")
    publisher = table.operator("publisher")

    publisher.publish("a")
    keeper.acknowledge()

    assert publisher.hear() == [mqtt_packets.Puback(1)]


def test_publish_when_later_one_is_ready_first_then_pubacks_keep_their_order(table: tables.Table) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("slow")
    publisher = table.operator("publisher")

    waiting = publisher.publish("slow", packet_id=1) + publisher.publish("fast", packet_id=2)
    keeper.acknowledge()

    assert waiting == []
    assert publisher.hear() == [mqtt_packets.Puback(1), mqtt_packets.Puback(2)]


def test_publish_when_message_expires_then_remaining_time_is_told_and_old_ones_are_dropped(table: tables.Table) -> None:
    publisher = table.operator("publisher")
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a")
    keeper.say(mqtt_packets.Disconnect())
    publisher.publish("a", b"short", properties=Properties(message_expiry_s=5))
    publisher.publish("a", b"long", properties=Properties(message_expiry_s=100))

    table.tick(10)
    again = tables.Client(table, tables.OPERATOR, limits.DEVICE)
    again.connect("keeper", clean_start=False, properties=tables.persistent())

    got = again.acknowledge() or list(tables.published(again.said))
    assert [(each.payload, each.properties.message_expiry_s) for each in got] == [(b"long", 90)]


def test_subscribe_when_options_are_given_then_they_hold(table: tables.Table) -> None:
    client = table.operator("op")
    client.publish("a/kept", b"kept", retain=True)
    client.say(
        mqtt_packets.Subscribe(
            1,
            (mqtt_packets.Request("a/+", 1, no_local=True, retain_as_published=True, retain_handling=2),),
            Properties(subscription_identifiers=(7,)),
        )
    )
    other = table.operator("other")

    client.publish("a/mine", b"")
    other.publish("a/other", b"x", retain=True)

    got = list(tables.published(client.hear()))
    assert [(each.topic, each.retain, each.properties.subscription_identifiers) for each in got] == [
        ("a/other", True, (7,))
    ]


def test_subscribe_when_filters_overlap_then_one_copy_with_the_highest_qos(table: tables.Table) -> None:
    client = table.operator("op")
    client.subscribe("a/#", qos=0)
    client.subscribe("a/+", qos=1)

    client.publish("a/b", b"x")

    assert [each.qos for each in tables.published(client.said + client.hear())] == [1]


def test_subscribe_when_more_than_fifty_then_the_rest_is_refused(table: tables.Table) -> None:
    client = table.operator("op")
    for index in range(48):
        client.subscribe(f"t/{index}")

    answers = client.subscribe("t/48", "t/49", "t/50", "t/0")

    assert answers == [mqtt_packets.Suback(1, (1, 1, Reason.QUOTA_EXCEEDED, 1))]


def test_subscribe_when_filter_is_not_valid_then_only_that_one_fails(table: tables.Table) -> None:
    client = table.operator("op")

    assert client.subscribe("a/#/b", "$share/g", "ok") == [
        mqtt_packets.Suback(1, (Reason.TOPIC_FILTER_INVALID, Reason.TOPIC_FILTER_INVALID, 1))
    ]


def test_subscribe_when_311_is_denied_then_closed(table: tables.Table) -> None:
    client = table.device("one", version=tables.V4)

    assert client.subscribe("$aws/things/two/#") == []
    assert client.closed


async def test_subscribe_when_session_is_persistent_then_suback_comes_after_the_commit(table: tables.Table) -> None:
    client = table.operator("op", properties=tables.persistent())

    before = client.subscribe("a")
    await table.commit()

    assert before == []
    assert client.hear() == [mqtt_packets.Suback(1, (1,))]


def test_unsubscribe_when_done_then_nothing_comes_any_more(table: tables.Table) -> None:
    client = table.operator("op")
    client.subscribe("a", "$share/g/b")

    answer = client.say(mqtt_packets.Unsubscribe(2, ("a", "$share/g/b", "c")))
    client.publish("a", qos=0)
    client.publish("b", qos=0)

    assert answer == [mqtt_packets.Unsuback(2, (0, 0, Reason.NO_SUBSCRIPTION_EXISTED))]
    assert not list(tables.published(client.said))


def test_disconnect_when_reason_asks_for_the_will_then_it_is_sent(table: tables.Table) -> None:
    watcher = table.operator("watcher")
    watcher.subscribe("will")
    will = mqtt_packets.Will("will", b"gone", 1)

    table.operator("polite", will=will).say(mqtt_packets.Disconnect())
    table.operator("asking", will=will).say(mqtt_packets.Disconnect(Reason.DISCONNECT_WITH_WILL))

    assert [each.payload for each in tables.published(watcher.hear())] == [b"gone"]


def test_will_when_it_has_a_delay_then_sent_later_or_never_if_the_client_returns(table: tables.Table) -> None:
    watcher = table.operator("watcher")
    watcher.subscribe("will")
    for name in ("stays", "returns"):
        will = mqtt_packets.Will("will", name.encode(), 1, properties=Properties(will_delay_s=5))
        client = table.operator(name, will=will, properties=tables.persistent())
        table.router.detach(client.link, "CONNECTION_LOST")
    at_once = list(tables.published(watcher.hear()))

    table.operator("returns", clean_start=False, properties=tables.persistent())
    table.tick(6)

    assert at_once == []
    assert [each.payload for each in tables.published(watcher.hear())] == [b"stays"]


def test_session_when_it_expires_then_it_is_forgotten(table: tables.Table) -> None:
    table.operator("op", properties=Properties(session_expiry_s=10)).say(mqtt_packets.Disconnect())

    table.tick(11)
    client = tables.Client(table, tables.OPERATOR, limits.DEVICE)

    assert not client.connect("op", clean_start=False).session_present


def test_session_when_disconnect_shortens_it_then_it_ends(table: tables.Table) -> None:
    table.operator("op", properties=tables.persistent()).say(mqtt_packets.Disconnect(0, Properties(session_expiry_s=0)))

    assert "op" not in table.router.sessions


def test_session_when_client_returns_then_unacknowledged_come_first_with_dup(table: tables.Table) -> None:
    client = table.operator("op", properties=tables.persistent(receive_maximum=2))
    client.subscribe("a")
    for payload in (b"1", b"2", b"3"):
        table.operator("publisher").publish("a", payload)
    client.hear()

    table.router.detach(client.link, "CONNECTION_LOST")
    again = tables.Client(table, tables.OPERATOR, limits.DEVICE)
    assert again.connect("op", clean_start=False, properties=tables.persistent()).session_present

    got = list(tables.published(again.said))
    assert [(each.payload, each.dup) for each in got] == [(b"1", True), (b"2", True), (b"3", False)]


def test_session_when_it_ends_with_messages_waiting_then_their_bytes_are_given_back(table: tables.Table) -> None:
    reader = table.operator("reader")
    reader.subscribe("a")
    table.operator("publisher").publish("a", b"x" * 1000)
    queued = table.around.counters.queued_bytes

    reader.say(mqtt_packets.Disconnect())

    assert queued > 1000
    assert table.around.counters.queued_bytes == 0
