"""Resource patterns: the table of spec/ipc.md 3.2, escapes, MQTT style, and the cost of malice."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import resources, topics

# pattern, resource, STANDARD, MQTT style
TABLE = [
    ("a/b", "a/b", True, True),
    ("a/b", "a/B", False, False),
    ("*", "anything/at all", True, True),
    ("*", "", True, True),
    ("a/*", "a/b/c", True, True),
    ("a/*", "a/", True, True),
    ("a/*", "a", False, False),
    ("*/b", "x/y/b", True, True),
    ("a*c", "ac", True, True),
    ("a*c", "abcbc", True, True),
    ("a*c", "abcb", False, False),
    ("a**c", "abc", True, True),
    ("*a*b*", "xaxbx", True, True),
    ("*a*b*", "xbxax", False, False),
    ("a/#", "a/#", True, True),
    ("a/#", "a/b", False, True),
    ("a/#", "a/b/c", False, True),
    ("a/#", "a/", False, True),
    ("a/#", "a", False, True),
    ("a/#", "ab", False, False),
    ("#", "a/b", False, True),
    ("#", "#", True, True),
    ("a/+", "a/+", True, True),
    ("a/+", "a/b", False, True),
    ("a/+", "a/", False, True),
    ("a/+", "a/b/c", False, False),
    ("a/+/c", "a/b/c", False, True),
    ("+/+", "a/b", False, True),
    ("a/+", "a/#", False, False),
    ("a/+/c", "a/#/c", False, False),
    ("+/#", "a", False, True),
    ("a/b+", "a/b+", True, True),
    ("a/b+", "a/bc", False, False),
    ("a/#/b", "a/x/b", False, False),
    ("a/#/b", "a/#/b", True, True),
    ("a/*/+", "a/b/c/d", False, True),
    ("*a/+", "xa/ya/z", False, True),
    ("${*}", "*", True, True),
    ("${*}", "x", False, False),
    ("a${?}", "a?", True, True),
    ("${$}{x}", "${x}", True, True),
    ("$aws/things/x", "$aws/things/x", True, True),
    ("$", "$", True, True),
    ("${", "${", True, True),
    ("{iot:thingName}/x", "{iot:thingName}/x", True, True),
    ("a.b", "axb", False, False),
    ("[ab]", "a", False, False),
    ("größe/*", "größe/ö", True, True),
]


@pytest.mark.parametrize(("pattern", "resource", "standard", "mqtt"), TABLE)
def test_matches_when_pattern_meets_resource_then_by_its_style(
    pattern: str, resource: str, standard: bool, mqtt: bool
) -> None:
    assert resources.matches(resources.compile_pattern(pattern), resource) is standard
    assert resources.matches(resources.compile_pattern(pattern, mqtt=True), resource) is mqtt


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "empty"), ("a?", "not a wildcard"), ("${x}", "no escape"), ("${**}", "no escape"), ("${}", "no escape")],
)
def test_compile_pattern_when_it_cannot_be_understood_then_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        resources.compile_pattern(text)


def test_matches_when_pattern_and_resource_are_malicious_then_still_quick() -> None:
    pattern = resources.compile_pattern("*a" * 100 + "*b")

    assert not resources.matches(pattern, "a" * 1000)


@given(st.text("ab/*", min_size=1, max_size=8), st.text("ab/", max_size=10))
def test_matches_when_only_stars_then_as_a_regular_expression_would(pattern: str, resource: str) -> None:
    expected = re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), resource) is not None

    assert resources.matches(resources.compile_pattern(pattern), resource) is expected


@given(
    st.lists(st.sampled_from(["a", "b", "+", ""]), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=5),
)
def test_matches_when_mqtt_style_without_stars_then_as_mqtt_matches_topics(
    levels: list[str], rest: bool, topic: list[str]
) -> None:
    pattern = "/".join([*levels, "#"] if rest else levels)
    if not pattern or not "/".join(topic):
        return

    expected = topics.matches(pattern, "/".join(topic), mqtt=True)
    assert resources.matches(resources.compile_pattern(pattern, mqtt=True), "/".join(topic)) is expected
