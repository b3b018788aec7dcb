"""Resource patterns of access policies: `*`, escapes, and MQTT's wildcards where they apply (spec/ipc.md 3.2).

Matching takes time in proportion to pattern times resource, whatever the pattern: no regular expression is built from it.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

_ANY = "any run"  # `*`: any characters, also `/`, also none
_LEVEL = "one level"  # `+`
_REST = "the rest"  # `/#` at the end: nothing, or `/` and (in the item that follows) any run
_ESCAPE = re.compile(r"\$\{([^}]*)\}")


class Pattern(Struct, frozen=True):
    """`items` are single characters to be met literally and the names of wildcards above."""

    text: str
    items: tuple[str, ...]


def compile_pattern(text: Any, *, mqtt: bool = False) -> Pattern:
    """Reads one resource of a policy. Raises ValueError with the reason if it cannot be understood."""
    if not isinstance(text, str):  # it comes from JSON
        raise ValueError("it is no text")
    if not text:
        raise ValueError("it is empty")
    items: list[str] = []
    position = 0
    while position < len(text):
        escape = _ESCAPE.match(text, position)
        if escape:
            items.append(_unescaped(escape[1]))
            position = escape.end()
            continue
        items.append(_item(text, position, mqtt))
        position += 1
    if items[-1] == _REST:
        items[-2:] = [_REST, _ANY]  # takes the slash before it, so that `a/#` covers `a`
    return Pattern(text, tuple(items))


def _unescaped(name: str) -> str:
    if name in ("*", "?", "$"):
        return name
    raise ValueError(f"${{{name}}} is no escape; there are ${{*}}, ${{?}} and ${{$}}")


def _item(text: str, position: int, mqtt: bool) -> str:
    character, last = text[position], position == len(text) - 1
    whole = (position == 0 or text[position - 1] == "/") and (last or text[position + 1] == "/")
    if character == "?":
        raise ValueError("? is not a wildcard; write ${?} for the character")
    if character == "*":
        return _ANY
    if mqtt and whole and character == "+":
        return _LEVEL
    if mqtt and whole and last and character == "#":
        return _ANY if position == 0 else _REST
    return character


def matches(pattern: Pattern, resource: str) -> bool:
    """Whether the pattern covers the whole resource.

    `+` covers no level `#`: who may use one level may not subscribe to all below it (the original lets that pass).
    """
    items = pattern.items
    states = _skipped(items, {0})
    for character in resource:
        if not states:
            return False
        following: set[int] = set()
        for state in states:
            if state < len(items):
                following |= _after(items[state], state, character)
        states = _skipped(items, following)
    return any(state == len(items) or items[state] == _REST for state in states)


def _after(item: str, state: int, character: str) -> set[int]:
    """Where one character leads from an item."""
    if item == _ANY or (item == _LEVEL and character not in "/#"):
        return {state}
    if item == _REST:
        return {state + 1} if character == "/" else set()
    return {state + 1} if item == character else set()


def _skipped(items: tuple[str, ...], states: set[int]) -> set[int]:
    """The states with those behind wildcards that may stand for nothing."""
    reached = set(states)
    for state in states:
        while state < len(items) and items[state] in (_ANY, _LEVEL):
            state += 1
            reached.add(state)
    return reached
