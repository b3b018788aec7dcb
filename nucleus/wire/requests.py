"""Checks a decoded request against the generated model (nucleus/wire/shapes.py).

What flows in: JSON as the clients send it. What flows out: the same with blobs as bytes (a publication's stays base64,
because it is only passed on), without nulls and without members the model does not know. Rules: lenient where a client
is known to differ (null for absent, an integer for a numeric enum), strict elsewhere; checkers are compiled from the tables
at their first use.
"""

from __future__ import annotations

import binascii
import functools
import math
import string
from collections.abc import Callable
from typing import Any

from nucleus.wire import extensions, shapes

Check = Callable[[Any], Any]
Members = tuple[tuple[str, bool, Check], ...]  # name, required, its check
_ALPHABET = string.ascii_letters.encode() + string.digits.encode() + b"+/"
_PASSED_ON = frozenset({"PublishToTopic"})
_LIMIT_S = 253_402_300_800.0  # the year 10000: later times are mistakes


class RequestError(Exception):
    """The request does not fit its shape; the text names the member."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(f"{path or 'the request'} {what}")
        self.what = what
        self.path = path

    def within(self, outer: str) -> RequestError:
        """The same error seen from the object or list around it."""
        inner = self.path if self.path.startswith("[") or not self.path else f".{self.path}"
        return RequestError(self.what, outer + inner)


def check(operation: str, request: Any) -> dict[str, Any]:
    """The checked request of a known operation. Raises RequestError."""
    checked: dict[str, Any] = _compile(extensions.operation(operation)[1], operation in _PASSED_ON)(request)
    return checked


@functools.cache
def _compile(kind: str, passed_on: bool) -> Check:
    """The checker of one kind as the tables write it."""
    if kind == "blob":
        return _base64 if passed_on else _blob
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind.startswith("["):
        return functools.partial(_list, _compile(kind[1:-1], passed_on))
    if kind.startswith("{"):
        return functools.partial(_map, _compile(kind[1:-1], passed_on))
    if kind in shapes.ENUMS:
        return functools.partial(_enum, frozenset(shapes.ENUMS[kind]))
    text = shapes.SHAPES[kind]
    members = tuple(_member(one, passed_on) for one in text.removeprefix("|").split())
    return functools.partial(_union if text.startswith("|") else _structure, members)


def _member(text: str, passed_on: bool) -> tuple[str, bool, Check]:
    name, _, kind = text.partition(":")
    return name.removesuffix("*"), name.endswith("*"), _compile(kind, passed_on)


def _structure(members: Members, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    found = {}
    for name, required, inner in members:
        given = value.get(name)
        if given is None and (inner is not _document or name not in value):
            if required:
                raise RequestError("is missing", name)
            continue
        try:
            found[name] = inner(given)
        except RequestError as error:
            raise error.within(name) from None
    return found


def _union(members: Members, value: Any) -> dict[str, Any]:
    found = _structure(members, value)
    if len(found) != 1:
        names = ", ".join(name for name, _, _ in members)
        raise RequestError(f"must have exactly one of {names}, not {len(found)}")
    return found


def _list(inner: Check, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong("a list", value)
    found = []
    for at, one in enumerate(value):
        try:
            found.append(inner(one))
        except RequestError as error:
            raise error.within(f"[{at}]") from None
    return found


def _map(inner: Check, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    found = {}
    for key, one in value.items():
        try:
            found[key] = inner(one)
        except RequestError as error:
            raise error.within(key) from None
    return found


def _enum(allowed: frozenset[str], value: Any) -> str:
    word = str(value) if value in (0, 1) else value  # lite takes qos as a number
    if not isinstance(word, str) or word not in allowed:
        raise _wrong(f"one of {', '.join(sorted(allowed))}", value)
    return word


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong("a string", value)
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("a boolean", value)
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # the Java client's Gson writes 1.0
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("an integer", value)
    return value


def _double(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong("a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RequestError("must be a number that is not that large")
    return number


def _timestamp(value: Any) -> float:
    seconds = _double(value)
    if not 0 <= seconds < _LIMIT_S:
        raise _wrong("seconds since 1970", value)
    return seconds


def _blob(value: Any) -> bytes:
    try:
        return binascii.a2b_base64(_string(value), strict_mode=True)
    except ValueError as error:
        raise RequestError(f"is no base64: {error}") from None


def _base64(value: Any) -> str:
    """The same rules without decoding, which would cost more than the rest of a publication."""
    text = _string(value)
    if (
        len(text) % 4
        or not text.isascii()
        or text.encode().rstrip(b"=").translate(None, _ALPHABET)
        or text[-3:] == "==="
    ):
        _blob(value)
    if text.endswith("="):
        _blob(text[-4:])
    return text


def _document(value: Any) -> Any:
    return value


_PLAIN: dict[str, Check] = {
    "string": _string,
    "boolean": _boolean,
    "integer": _integer,
    "double": _double,
    "timestamp": _timestamp,
    "document": _document,
}


def _wrong(wanted: str, value: Any) -> RequestError:
    return RequestError(f"must be {wanted}, not {_show(value)}")


def _show(value: Any) -> str:
    """A value for a message, short and without what a payload may hold."""
    if isinstance(value, bool | float) or (isinstance(value, str) and len(value) <= 40):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "that large"
    if value is None:
        return "null"
    return "a long string" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
