"""Local publish/subscribe: who gets what, in which order, and cancelling."""

from __future__ import annotations

import pytest

from nucleus.actors import broker


def _listen(hub: broker.Broker, filter_: str, component: str = "me", mode: str = "") -> list[tuple[str, bytes]]:
    heard: list[tuple[str, bytes]] = []
    hub.subscribe(filter_, mode, component, lambda topic, message: heard.append((topic, message)))
    return heard


@pytest.mark.parametrize(
    ("filter_", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", False),  # unlike MQTT
        ("#", "$sys", True),  # no special case either
        ("a/b", "a/b/", True),
    ],
)
def test_publish_when_filter_matches_or_not_then_delivered_or_not(filter_: str, topic: str, matches: bool) -> None:
    hub = broker.Broker()
    heard = _listen(hub, filter_)

    delivered = hub.publish(topic, b"x", "other")

    assert (delivered, len(heard)) == (matches, matches)


def test_publish_when_repeated_then_order_is_kept_and_each_subscription_gets_it() -> None:
    hub = broker.Broker()
    first, second = _listen(hub, "a"), _listen(hub, "a")

    for number in range(5):
        hub.publish("a", bytes((number,)), "other")

    assert first == second == [("a", bytes((number,))) for number in range(5)]


@pytest.mark.parametrize(
    ("filter_", "mode", "hears_itself"),
    [("a", "", True), ("+", "", False), ("+", broker.ALL, True), ("a", broker.OTHERS, False)],
)
def test_publish_when_from_itself_then_by_mode_and_default(filter_: str, mode: str, hears_itself: bool) -> None:
    hub = broker.Broker()
    heard = _listen(hub, filter_, mode=mode)

    hub.publish("a", b"own", "me")
    hub.publish("a", b"foreign", "other")

    assert [message for _, message in heard] == [b"own"] * hears_itself + [b"foreign"]


def test_subscription_when_cancelled_twice_then_only_itself_is_gone() -> None:
    hub = broker.Broker()
    gone: list[bytes] = []
    cancel = hub.subscribe("a", "", "me", lambda _, message: gone.append(message))
    stays = _listen(hub, "a")
    hub.publish("a", b"1", "other")

    cancel()
    cancel()
    hub.publish("a", b"2", "other")

    assert gone == [b"1"]
    assert stays == [("a", b"1"), ("a", b"2")]


def test_subscription_when_cancelled_during_delivery_then_others_still_get_it() -> None:
    hub = broker.Broker()
    cancels = []
    cancels.append(hub.subscribe("a", "", "me", lambda *_: cancels[0]()))
    heard = _listen(hub, "a")

    hub.publish("a", b"x", "other")

    assert heard == [("a", b"x")]
    assert hub.publish("a", b"y", "other") == 1


def test_publish_when_many_topics_then_memory_of_matches_is_bounded() -> None:
    hub = broker.Broker()
    heard = _listen(hub, "#")

    for number in range(5000):
        hub.publish(f"t/{number}", b"", "other")

    assert len(heard) == 5000
    assert len(hub._matches) <= broker.MATCHES_KEPT
