"""Plain JSON values: comparing, copying, measuring and pointing into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two values are alike in type, too: 1, 1.0 and true are three values."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def copied(value: Any) -> Any:
    """The value with every list and mapping in it made anew."""
    if isinstance(value, list | tuple):
        return [copied(each) for each in value]
    if isinstance(value, Mapping):
        return {name: copied(each) for name, each in value.items()}
    return value


def is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and mappings lie in each other more than `limit` deep; safe for any depth."""
    level = [value]
    for _ in range(limit + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def pointer(text: str) -> tuple[str, ...] | None:
    """The path of a JSON pointer (RFC 6901); `""` is the whole, None what is no pointer."""
    if not text:
        return ()
    if not text.startswith("/"):
        return None
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
