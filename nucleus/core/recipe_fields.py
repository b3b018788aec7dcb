"""Typed access to the members of a recipe being read; every complaint knows the path of the key it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import markup


class Problem(Exception):  # noqa: N818 - caught by recipe.read, which names component, version, key and line
    """What is wrong at `path`; `code` is a word of errors.CODES."""

    def __init__(self, path: markup.Path, why: str, code: str = "RECIPE_PARSE_ERROR") -> None:
        super().__init__(why)
        self.path = path
        self.why = why
        self.code = code


class Field(Struct, frozen=True):
    """A value and the way to it, in the spelling of the text; an absent member has the value None."""

    value: Any
    path: markup.Path = ()


def member(parent: Field, name: str) -> Field:
    """The member `name` of a mapping, whatever its case. Raises Problem if it is given in two spellings."""
    if parent.value is None:
        return Field(None, (*parent.path, name))
    found = [key for key in _mapping(parent) if key.lower() == name.lower()]
    if len(found) > 1:
        raise Problem((*parent.path, found[1]), f'is given twice, also as "{found[0]}"')
    key = found[0] if found else name
    return Field(parent.value.get(key), (*parent.path, key))


def members(field: Field) -> dict[str, Field]:
    """All members of a mapping by their own names; empty if absent."""
    if field.value is None:
        return {}
    return {key: Field(value, (*field.path, key)) for key, value in _mapping(field).items()}


def entries(field: Field) -> tuple[Field, ...]:
    """The entries of a list; empty if absent."""
    if field.value is None:
        return ()
    if not isinstance(field.value, list):
        raise Problem(field.path, f"must be a list, not {kind(field.value)}")
    return tuple(Field(value, (*field.path, index)) for index, value in enumerate(field.value))


def text(field: Field, default: str | None = "") -> str:
    """A text; numbers and truth values are not taken, because `1.0` would lose its spelling. None: it must be there."""
    if field.value is None and default is not None:
        return default
    if field.value is None:
        raise Problem(field.path, "is missing")
    if not isinstance(field.value, str):
        hint = "; write it in quotes" if isinstance(field.value, int | float) else ""
        raise Problem(field.path, f"must be a text, not {kind(field.value)}{hint}")
    return field.value


def choice(field: Field, options: tuple[str, ...], default: str) -> str:
    """One of `options`, whatever its case, in our spelling."""
    given = text(field, default)
    for option in options:
        if option.lower() == given.lower():
            return option
    raise Problem(field.path, f'must be one of {", ".join(options)}, not "{given}"')


def plain(field: Field) -> dict[str, Any]:
    """A mapping with free content; empty if absent."""
    return dict(_mapping(field)) if field.value is not None else {}


def kind(value: Any) -> str:
    """The JSON kind of a value, with scalars shown, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the text "{value[:60]}"'
        case list():
            return "a list"
        case _:
            return "a mapping"


def show(path: markup.Path) -> str:
    """`Manifests[0].Artifacts[1].URI`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _mapping(field: Field) -> Mapping[str, Any]:
    if not isinstance(field.value, dict):
        raise Problem(field.path, f"must be a mapping, not {kind(field.value)}")
    return field.value
