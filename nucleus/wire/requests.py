"""Checks a decoded request against the generated model (nucleus/wire/shapes.py).

What flows in: JSON as the clients send it. What flows out: the same with blobs as bytes, without nulls and without
members the model does not know. Rules: lenient where a client is known to differ (null for absent, an integer for a
numeric enum), strict elsewhere; checkers are compiled from the tables at their first use.
"""

from __future__ import annotations

import binascii
import functools
import math
from collections.abc import Callable
from typing import Any

from nucleus.wire import shapes

Check = Callable[[Any, str], Any]
_LIMIT_S = 253_402_300_800.0  # the year 10000: later times are mistakes


class RequestError(Exception):
    """The request does not fit its shape; the text names the member."""


def check(operation: str, request: Any) -> dict[str, Any]:
    """The checked request of a known operation. Raises RequestError."""
    checked: dict[str, Any] = _compile(shapes.OPERATIONS[operation][1])(request, "")
    return checked


@functools.cache
def _compile(kind: str) -> Check:
    """The checker of one kind as the tables write it."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind.startswith("["):
        return functools.partial(_list, _compile(kind[1:-1]))
    if kind.startswith("{"):
        return functools.partial(_map, _compile(kind[1:-1]))
    if kind in shapes.ENUMS:
        return functools.partial(_enum, frozenset(shapes.ENUMS[kind]))
    text = shapes.SHAPES[kind]
    members = tuple(_member(one) for one in text.removeprefix("|").split())
    return functools.partial(_union if text.startswith("|") else _structure, members)


def _member(text: str) -> tuple[str, bool, Check]:
    name, _, kind = text.partition(":")
    return name.removesuffix("*"), name.endswith("*"), _compile(kind)


def _structure(members: tuple[tuple[str, bool, Check], ...], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    found = {}
    for name, required, inner in members:
        given = value.get(name)
        if given is None and (inner is not _document or name not in value):
            if required:
                raise RequestError(f"{_at(path, name)} is missing")
            continue
        found[name] = inner(given, _at(path, name))
    return found


def _union(members: tuple[tuple[str, bool, Check], ...], value: Any, path: str) -> dict[str, Any]:
    found = _structure(members, value, path)
    if len(found) != 1:
        names = ", ".join(name for name, _, _ in members)
        raise RequestError(f"{path} must have exactly one of {names}, not {len(found)}")
    return found


def _list(inner: Check, value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(path, "a list", value)
    return [inner(one, f"{path}[{at}]") for at, one in enumerate(value)]


def _map(inner: Check, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, "an object", value)
    return {key: inner(one, _at(path, key)) for key, one in value.items()}


def _enum(values: frozenset[str], value: Any, path: str) -> str:
    word = str(value) if isinstance(value, int) else value  # lite takes qos as a number
    if not isinstance(word, str) or word not in values:
        raise RequestError(f"{path} must be one of {', '.join(sorted(values))}, not {_show(value)}")
    return word


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, "a string", value)
    return value


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(path, "a boolean", value)
    return value


def _integer(value: Any, path: str) -> int:
    if isinstance(value, float) and value.is_integer():  # the Java client's Gson writes 1.0
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, "an integer", value)
    return value


def _double(value: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _wrong(path, "a number", value)
    return float(value)


def _timestamp(value: Any, path: str) -> float:
    seconds = _double(value, path)
    if not 0 <= seconds < _LIMIT_S:
        raise RequestError(f"{path} must be seconds since 1970, not {_show(value)}")
    return seconds


def _blob(value: Any, path: str) -> bytes:
    try:
        return binascii.a2b_base64(_string(value, path), strict_mode=True)
    except ValueError as error:
        raise RequestError(f"{path} is no base64: {error}") from None


def _document(value: Any, path: str) -> Any:
    return value


_PLAIN: dict[str, Check] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    "double": _double,
    "timestamp": _timestamp,
    "blob": _blob,
    "document": _document,
}


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong(path: str, wanted: str, value: Any) -> RequestError:
    return RequestError(f"{path or 'the request'} must be {wanted}, not {_show(value)}")


def _show(value: Any) -> str:
    """A value for a message, short and without what a payload may hold."""
    if isinstance(value, str | int | float) and len(str(value)) <= 40:
        return repr(value)
    return {dict: "an object", list: "a list", str: "a long string", type(None): "null"}.get(type(value), "that")
