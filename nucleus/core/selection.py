"""Rules that select client devices by their thing names: `thingName: a* OR (thingName: b AND thingName: *c)`.

`*` stands for anything at the beginning or the end of a name; AND binds before OR. A colon in a name may be written `\\:`.
Source: the documentation of `aws.greengrass.clientdevices.Auth`, deviceGroups.definitions.<group>.selectionRule.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LIMIT_CHARACTERS = 16_384
LIMIT_DEPTH = 32  # parentheses in each other
_TOKEN = re.compile(r"\s*(?:(?P<sign>[()])|(?P<key>thingName)\s*:\s*(?P<name>[^\s()]*)|(?P<word>[^\s()]+))")
_NAME = re.compile(r"(?P<first>\*?)(?P<middle>(?:[\w-]|\\?:)*)(?P<last>\*?)", re.ASCII)

Rule = Callable[[str], bool]
Token = tuple[str, str, int]  # kind (`(`, `)`, `name` or `word`), text, where


class RuleError(Exception):
    """The text is no rule; the words say where and why."""


def read(text: str) -> Rule:
    """Whether a thing's name is selected, as a function. Raises RuleError."""
    if len(text) > LIMIT_CHARACTERS:
        raise RuleError(f"it has more than {LIMIT_CHARACTERS} characters")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        assert match is not None  # a character that is neither blank nor parenthesis is a word
        kind = "name" if match["key"] else match["sign"] or "word"
        group = "name" if match["key"] else "sign" if match["sign"] else "word"
        found.append((kind, match[group], match.start(group) + 1))
        at = match.end()
    return found


class _Parser:
    """One reading: rule = all (OR all)*; all = one (AND one)*; one = `thingName: name` or `( rule )`."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Rule:
        found = self._rule()
        if self._at < len(self._tokens):
            raise self._unexpected("AND or OR")
        return found

    def _rule(self) -> Rule:
        parts = [self._all()]
        while self._takes("word", "OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda name: any(part(name) for part in parts)

    def _all(self) -> Rule:
        parts = [self._one()]
        while self._takes("word", "AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda name: all(part(name) for part in parts)

    def _one(self) -> Rule:
        if self._takes("(", "("):
            self._depth += 1
            if self._depth > LIMIT_DEPTH:
                raise RuleError(f"more than {LIMIT_DEPTH} parentheses lie in each other")
            found = self._rule()
            if not self._takes(")", ")"):
                raise self._unexpected("a closing parenthesis, AND or OR")
            self._depth -= 1
            return found
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != "name":
            raise self._unexpected("thingName: <name>")
        _, text, where = self._tokens[self._at]
        self._at += 1
        return _named(text, where)

    def _takes(self, kind: str, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][:2] == (kind, text):
            self._at += 1
            return True
        return False

    def _unexpected(self, wanted: str) -> RuleError:
        if self._at >= len(self._tokens):
            return RuleError(f"it ends where {wanted} belongs")
        kind, text, where = self._tokens[self._at]
        shown = f"thingName: {text}" if kind == "name" else text
        return RuleError(f"{shown[:60]!r} (character {where}) stands where {wanted} belongs")


def _named(text: str, where: int) -> Rule:
    match = _NAME.fullmatch(text)
    if match is None or not text:
        why = "letters, digits, '-', '_' and ':', with '*' only at its beginning or end"
        raise RuleError(f"the name {text[:60]!r} (character {where}) must be {why}")
    middle, first, last = match["middle"].replace("\\:", ":"), bool(match["first"]), bool(match["last"])
    if first and (last or not middle):
        return lambda name: middle in name
    if first:
        return lambda name: name.endswith(middle)
    if last:
        return lambda name: name.startswith(middle)
    return lambda name: name == middle
