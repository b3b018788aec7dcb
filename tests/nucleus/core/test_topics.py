"""Topic filters of local publish/subscribe and of MQTT, one by one and in the trie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import topics

# filter, topic, local, MQTT
TABLE = [
    ("a/b", "a/b", True, True),
    ("a/b", "A/b", False, False),
    ("a/b", "a", False, False),
    ("a/b", "a/b/c", False, False),
    ("a/+", "a/b", True, True),
    ("a/+", "a", False, False),
    ("a/+", "a/b/c", False, False),
    ("+/b", "a/b", True, True),
    ("+", "a", True, True),
    ("+/+", "/b", True, True),
    ("#", "a/b/c", True, True),
    ("a/#", "a/b/c", True, True),
    ("a/#", "a/b", True, True),
    ("a/#", "a", False, True),
    ("a/#", "ab", False, False),
    ("a/+/#", "a/b", False, True),
    ("a/b/", "a/b", True, False),
    ("a/b", "a/b/", True, False),
    ("a/+", "a/", False, True),
    ("a//b", "a//b", True, True),
    ("a/+/b", "a//b", True, True),
    ("#", "$aws/x", True, False),
    ("+/x", "$aws/x", True, False),
    ("$aws/#", "$aws/x", True, True),
    ("$aws/+", "$aws/x", True, True),
    ("a/#/b", "a/x/b", False, False),
    ("a+", "ab", False, False),
]

levels = st.sampled_from(["a", "b", "", "$x"])
some_topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
some_filters = st.one_of(
    st.lists(st.one_of(levels, st.just("+")), min_size=1, max_size=4).map("/".join),
    st.lists(st.one_of(levels, st.just("+")), max_size=3).map(lambda parts: "/".join([*parts, "#"])),
).filter(bool)


@pytest.mark.parametrize(("filter_", "topic", "local", "mqtt"), TABLE)
def test_matches_when_filter_meets_topic_then_by_the_rules_of_each(
    filter_: str, topic: str, local: bool, mqtt: bool
) -> None:
    assert topics.matches(filter_, topic) is local
    assert topics.matches(filter_, topic, mqtt=True) is mqtt
    for is_mqtt, expected in [(False, local), (True, mqtt)]:
        trie = topics.Trie[str](mqtt=is_mqtt)
        trie.add(filter_, "value")
        assert trie.match(topic) == (["value"] if expected else [])


@given(st.lists(some_filters, max_size=8), some_topics, st.booleans())
def test_trie_when_matched_then_exactly_the_filters_that_match(filters: list[str], topic: str, mqtt: bool) -> None:
    trie = topics.Trie[tuple[int, str]](mqtt=mqtt)
    for number, filter_ in enumerate(filters):
        trie.add(filter_, (number, filter_))

    expected = [(number, each) for number, each in enumerate(filters) if topics.matches(each, topic, mqtt=mqtt)]
    assert sorted(trie.match(topic)) == expected


@given(st.lists(some_filters, max_size=6), st.lists(some_filters, max_size=6), some_topics, st.booleans(), st.randoms())
def test_trie_when_filters_are_removed_then_as_if_never_added(  # type: ignore[no-untyped-def]
    kept: list[str], removed: list[str], topic: str, mqtt: bool, random
) -> None:
    trie, fresh = topics.Trie[str](mqtt=mqtt), topics.Trie[str](mqtt=mqtt)
    additions = [(each, f"kept {each}") for each in kept] + [(each, f"removed {each}") for each in removed]
    random.shuffle(additions)
    for filter_, value in additions:
        trie.add(filter_, value)
    for each in kept:
        fresh.add(each, f"kept {each}")

    assert all(trie.remove(each, f"removed {each}") for each in removed)

    assert sorted(trie.match(topic)) == sorted(fresh.match(topic))
    assert not any(trie.remove(each, f"removed {each}") for each in removed)
    for each in kept:
        trie.remove(each, f"kept {each}")
    assert not trie._root.children


def test_trie_when_a_value_is_added_twice_then_matched_twice_in_order() -> None:
    trie = topics.Trie[str]()
    for value in ["one", "two", "one"]:
        trie.add("a", value)

    assert trie.match("a") == ["one", "two", "one"]
    assert trie.remove("a", "one")
    assert trie.match("a") == ["two", "one"]
    assert not trie.remove("b", "one")
    assert not trie.remove("a", "three")


@pytest.mark.parametrize("text", ["a", "a/b", "+", "#", "a/+/b", "a/#", "/", "//", "$aws/+", "+/#", "a b"])
def test_is_filter_when_mqtt_allows_it_then_true(text: str) -> None:
    assert topics.is_filter(text)


@pytest.mark.parametrize("text", ["", "a+", "a/b#", "#/a", "a/#/b", "a\0", "\ud800", "ä" * 32768, "##", "++"])
def test_is_filter_when_mqtt_forbids_it_then_false(text: str) -> None:
    assert not topics.is_filter(text)


def test_is_topic_when_it_holds_a_wildcard_or_nothing_then_false() -> None:
    assert topics.is_topic("a/b")
    assert not any(topics.is_topic(text) for text in ["", "a/+", "#", "a+b", "a\0"])


def test_has_wildcard_when_a_whole_level_is_one_then_true() -> None:
    assert topics.has_wildcard("a/+/b")
    assert topics.has_wildcard("#")
    assert not topics.has_wildcard("a/b+c")
