"""Selection rules: what the words mean, what mistakes are told, and no text that breaks the reader."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import selection


@pytest.mark.parametrize(
    ("rule", "selected", "not_selected"),
    [
        ("thingName: a", "a", "aa"),
        ("thingName:a", "a", "A"),
        ("  thingName : a  ", "a", ""),
        ("thingName: *", "anything", None),
        ("thingName: pump*", "pump-1", "a-pump"),
        ("thingName: *pump", "a-pump", "pump-1"),
        ("thingName: *pump*", "a-pump-1", "pum"),
        ("thingName: **", "anything", None),
        (r"thingName: team\:a", "team:a", r"team\:a"),
        ("thingName: team:a", "team:a", "team"),
        ("thingName: OR", "OR", "AND"),
        ("thingName: a OR thingName: b", "b", "c"),
        ("thingName: a* AND thingName: *z", "abz", "ab"),
        ("thingName: a OR thingName: b* AND thingName: *z", "a", "b"),
        ("(thingName: a OR thingName: b*) AND thingName: *z", "bz", "a"),
        ("((thingName: a))OR(thingName: b)", "b", "c"),
    ],
)
def test_read_when_it_is_a_rule_then_it_selects_what_it_says(
    rule: str, selected: str, not_selected: str | None
) -> None:
    selects = selection.read(rule)

    assert selects(selected)
    assert not_selected is None or not selects(not_selected)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "it ends where thingName: <name> belongs"),
        ("thingName", "'thingName' (character 1) stands where thingName: <name> belongs"),
        ("thingName: a thingName: b", "'thingName: b' (character 25) stands where AND or OR belongs"),
        ("thingName: a OR", "it ends where thingName: <name> belongs"),
        ("thingName: a or thingName: b", "'or' (character 14) stands where AND or OR belongs"),
        ("(thingName: a", "it ends where a closing parenthesis, AND or OR belongs"),
        ("thingName: a)", "')' (character 13) stands where AND or OR belongs"),
        ("thingName: a*b", "the name 'a*b' (character 12) must be letters"),
        ("thingName: ä", "the name 'ä' (character 12) must be letters"),
        ("thingName:", "the name '' (character 11) must be letters"),
        ("(" * 33 + "thingName: a" + ")" * 33, "more than 32 parentheses lie in each other"),
        ("x" * 16_385, "it has more than 16384 characters"),
    ],
)
def test_read_when_it_is_no_rule_then_it_says_where_and_why(rule: str, why: str) -> None:
    with pytest.raises(selection.RuleError) as error:
        selection.read(rule)

    assert why in str(error.value)


def test_read_when_a_rule_is_as_long_as_it_may_be_then_it_works() -> None:
    rule = " OR ".join(f"thingName: device-{number}" for number in range(650))

    assert selection.read(rule)("device-649")


WORDS = st.sampled_from(["thingName", "thingName:", ":", "*", "(", ")", "AND", "OR", "a", "\\:", " ", "\n", "é"])


@given(st.one_of(st.text(), st.lists(WORDS).map("".join), st.lists(WORDS).map(" ".join)), st.text())
def test_read_when_given_anything_then_a_rule_or_its_error(text: str, name: str) -> None:
    try:
        selects = selection.read(text)
    except selection.RuleError:
        return
    assert selects(name) in (True, False)


NAMES = st.sampled_from(["a", "b", "ab"])
TREES: st.SearchStrategy[Any] = st.recursive(
    NAMES, lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=12
)


def _text(tree: Any) -> str:
    return f"thingName: {tree}*" if isinstance(tree, str) else f"({_text(tree[1])} {tree[0]} {_text(tree[2])})"


def _value(tree: Any, name: str) -> bool:
    if isinstance(tree, str):
        return name.startswith(tree)
    sides = [_value(side, name) for side in tree[1:]]
    return all(sides) if tree[0] == "AND" else any(sides)


@given(TREES, st.text("abc", max_size=3))
def test_read_when_rules_lie_in_each_other_then_it_is_what_they_say(tree: Any, name: str) -> None:
    assert selection.read(_text(tree))(name) == _value(tree, name)
