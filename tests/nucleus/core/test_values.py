"""Plain JSON values: comparing, copying, measuring and pointing."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import values


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        (None, None, True),
        ("a", "a", True),
        ([1, [2]], [1, [2]], True),
        ([1, [2]], [1, [2.0]], False),
        ([1], [1, 2], False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"A": 1}, False),
        ([], {}, False),
    ],
)
def test_same_when_two_values_then_alike_in_type_too(one: Any, other: Any, alike: bool) -> None:
    assert values.same(one, other) is alike


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("/", ("",)),
        ("/a/b", ("a", "b")),
        ("/a~1b/m~0n", ("a/b", "m~n")),
        ("/~01", ("~1",)),
        ("a", None),
        ("#/a", None),
    ],
)
def test_pointer_when_read_then_its_path(text: str, path: tuple[str, ...] | None) -> None:
    assert values.pointer(text) == path


def test_is_deeper_when_lists_and_mappings_nest_then_measured_without_recursion() -> None:
    assert not values.is_deeper([[{"a": 1}]], 3)
    assert values.is_deeper([[{"a": [1]}]], 3)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert values.is_deeper(deep, 50)
