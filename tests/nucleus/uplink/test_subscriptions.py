"""Which filters the broker must hold for what is subscribed."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import topics
from nucleus.uplink import subscriptions


def taker(_message: Any) -> None:
    """One that takes nothing."""


def known(*filters: str, qos: int = 1) -> subscriptions.Subscriptions:
    """Subscribed and confirmed, one after the other as the connection does it."""
    one = subscriptions.Subscriptions()
    for filter_ in filters:
        one.add(filter_, (qos, taker))
        wanted = one.request(filter_)
        if wanted is not None:
            one.confirm(*wanted)
            for needless in one.narrower(wanted[0]):
                one.forget(needless)
    return one


def test_request_when_a_wider_filter_is_there_then_nothing_is_asked() -> None:
    assert list(known("site/#", "site/+/temperature", "site/a", "site").confirmed) == ["site/#"]


def test_request_when_a_wider_filter_comes_then_it_stands_for_all() -> None:
    assert list(known("site/a", "site/b", "site/#", "other").confirmed) == ["site/#", "other"]


def test_request_when_the_wider_one_has_a_lower_qos_then_it_is_raised() -> None:
    one = known("site/#", qos=0)
    one.add("site/a", (1, taker))

    assert one.request("site/a") == ("site/#", 1)


def test_to_subscribe_when_the_wider_one_goes_then_the_narrower_ones_come_back() -> None:
    one = known("site/a", "site/b/+", "site/b/c", "site/#")

    assert one.remove("site/#", (1, taker))

    assert one.to_subscribe() == {"site/a": 1, "site/b/+": 1}
    assert one.to_unsubscribe() == ["site/#"]


def test_to_subscribe_when_the_session_is_lost_then_the_widest_with_the_highest_qos() -> None:
    one = known("site/#", "x", qos=0)
    one.add("site/a", (1, taker))

    one.connected(session_present=False)

    assert one.to_subscribe() == {"site/#": 1, "x": 0}


def test_to_subscribe_when_the_wider_one_is_refused_then_the_narrower_ones_are_asked_for() -> None:
    one = known("site/#", "site/a")
    one.connected(session_present=False)

    one.refuse("site/#")

    assert one.to_subscribe() == {"site/a": 1}
    one.connected(session_present=True)
    assert one.to_subscribe() == {"site/#": 1}


def test_remove_when_others_take_the_filter_then_it_stays() -> None:
    one = known("a", "a")

    assert not one.remove("a", (1, taker))
    assert one.remove("a", (1, taker))
    assert not one.remove("a", (1, taker))


def test_count_when_filters_are_covered_then_they_count_once() -> None:
    one = known("site/#", "x")

    assert [one.count_with(filter_, ["y"]) for filter_ in ("site/a", "y", "z")] == [3, 3, 4]


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("a/#", "a", True),
        ("a/#", "a/#", True),
        ("a/#", "a/+/c", True),
        ("#", "a/b", True),
        ("+/b", "a/b", True),
        ("+", "#", False),
        ("a/+", "a/#", False),
        ("a/+", "a/b/c", False),
        ("a/b", "a/+", False),
        ("#", "$aws/things/t/jobs/#", False),
        ("$aws/#", "$aws/things/t/jobs/#", True),
        ("$share/g/a/#", "a/b", False),
        ("#", "$share/g/a", False),
        ("$share/g/#", "$share/g/a", False),
    ],
)
def test_covers_when_compared_then_as_mqtt_has_it(wide: str, narrow: str, covered: bool) -> None:
    assert topics.covers(wide, narrow) is covered
