"""Topic rules and the table of subscriptions."""

from __future__ import annotations

import random

import pytest

from cloud.core import subscriptions, topics


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/one/jobs/notify",
        "$aws/things/one/jobs/notify-next",
        "$aws/things/one/jobs/notify-namespace-aws-gg-deployment",
        "$aws/things/one/jobs/$next/get/accepted",
        "$aws/things/one/shadow/name/x/update/rejected",
        "$aws/things/one/shadow/update/documents",
        "$aws/certificates/create/json/accepted",
        "$aws/provisioning-templates/t/provision/json/rejected",
        "$aws/events/presence/connected/one",
        "$marram/broker/principals",
        "$SYS/broker/statistics",
    ],
)
def test_is_service_owned_when_only_the_service_may_say_it_then_true(topic: str) -> None:
    assert topics.is_service_owned(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/one/jobs/$next/get",
        "$aws/things/one/shadow/name/accepted/get",
        "a/accepted",
        "$aws/certificates/create/json",
    ],
)
def test_is_service_owned_when_a_device_may_say_it_then_false(topic: str) -> None:
    assert not topics.is_service_owned(topic)


@pytest.mark.parametrize(
    ("topic", "valid"),
    [
        ("a", True),
        ("/", True),
        ("a/b/c/d/e/f/g/h", True),
        ("a/b/c/d/e/f/g/h/i", False),
        ("$aws/things/t/shadow/name/n/update/accepted/x", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("ü" * 129, False),
        ("", False),
        ("a/+", False),
        ("#", False),
    ],
)
def test_fault_of_topic_when_topic_is_given_then_as_in_the_table(topic: str, valid: bool) -> None:
    assert (topics.fault_of_topic(topic) == "") is valid


@pytest.mark.parametrize(
    ("topic_filter", "valid"),
    [("#", True), ("+", True), ("a/+/#", True), ("a/#/b", False), ("a#", False), ("a+/b", False), ("", False), ("//", True)],
)  # fmt: skip
def test_fault_of_filter_when_filter_is_given_then_as_in_the_table(topic_filter: str, valid: bool) -> None:
    assert (topics.fault_of_filter(topic_filter) == "") is valid


def test_split_share_when_filter_is_shared_then_group_and_filter() -> None:
    assert topics.split_share("$share/g/a/#") == ("g", "a/#")
    assert topics.split_share("a/#") == ("", "a/#")
    assert [topics.split_share(each) for each in ("$share/g", "$share//a", "$share/g+/a", "$share/g/")] == [None] * 4


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$aws/x", False),
        ("+/x", "$aws/x", False),
        ("$aws/#", "$aws/x", True),
        ("+/+", "/x", True),
        ("/+", "/x", True),
        ("+", "/x", False),
    ],
)
def test_match_when_filter_and_topic_are_given_then_as_in_the_standard(
    topic_filter: str, topic: str, expected: bool
) -> None:
    table: subscriptions.Subscriptions[str, int] = subscriptions.Subscriptions()
    table.add(topic_filter, "", "me", 1)

    assert bool(table.match(topic)) is expected
    assert subscriptions.matches(topic_filter, topic) is expected


def test_table_when_filters_come_and_go_then_equal_to_a_plain_list() -> None:
    chance = random.Random(3)
    table: subscriptions.Subscriptions[int, int] = subscriptions.Subscriptions()
    plain: dict[tuple[str, str, int], int] = {}
    levels = ["a", "b", "+", "$x"]

    for _ in range(3_000):
        topic_filter = "/".join(chance.choice(levels) for _ in range(chance.randint(1, 3)))
        topic_filter += chance.choice(["", "", "/#"])
        key = (topic_filter, chance.choice(["", "g"]), chance.randrange(4))
        if chance.random() < 0.5:
            assert table.add(*key, 1) is (key not in plain)
            plain[key] = 1
        else:
            assert table.remove(*key) is (plain.pop(key, None) is not None)
        topic = "/".join(chance.choice(["a", "b", "$x"]) for _ in range(chance.randint(1, 4)))
        assert _found(table, topic) == sorted(
            (group, who) for each, group, who in plain if subscriptions.matches(each, topic)
        )

    for key in list(plain):
        table.remove(*key)
    assert not table._exact
    assert not table._root.children


def test_pick_when_asked_again_then_the_next_member_is_first() -> None:
    group: subscriptions.Group[str, int] = subscriptions.Group()
    group.members = {"a": 1, "b": 2, "c": 3}

    assert [next(subscriptions.pick(group))[0] for _ in range(4)] == ["a", "b", "c", "a"]


def _found(table: subscriptions.Subscriptions[int, int], topic: str) -> list[tuple[str, int]]:
    found = []
    for leaf in table.match(topic):
        found += [("", each) for each in leaf.single]
        found += [(name, each) for name, group in (leaf.groups or {}).items() for each in group.members]
    return sorted(found)
