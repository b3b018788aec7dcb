"""The words in which a scenario is written, and how an answer is compared with what is expected.

In requests and expectations `<name>` stands for a value of the run (the device's names, what a step saved); a text that is
nothing else becomes the value itself. In an expectation a type stands for any value of it, `Has(x)` for a list with x in
it, `Json(x)` for base64 of JSON text like x, and an object for one with at least these members.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Call(Struct, frozen=True):
    """One unary operation. `error` is the shape that must come instead of an answer like `expect`."""

    operation: str
    request: Mapping[str, Any] = {}
    expect: Any = None
    error: str = ""
    role: str = "main"
    save: Mapping[str, str] = {}  # name of the value: member of the answer


class Subscribe(Struct, frozen=True):
    """One streaming operation; its stream is called `name` from now on and closed at the scenario's end."""

    operation: str
    request: Mapping[str, Any] = {}
    expect: Any = None
    error: str = ""
    role: str = "main"
    name: str = "stream"


class Event(Struct, frozen=True):
    """The next event of a stream; with `skip` the next one that fits."""

    expect: Any
    name: str = "stream"
    save: Mapping[str, str] = {}
    skip: bool = False


class Do(Struct, frozen=True):
    """Something that happens to the device: a method of world.Device with its arguments; the result is saved."""

    what: str
    arguments: Mapping[str, Any] = {}
    save: str = ""


Step = Call | Subscribe | Event | Do


class Scenario(Struct, frozen=True):
    """Steps after which `operation` has shown `outcome`: "ok", "event <member>", or an error's shape.

    `refusable`: a client may refuse such a request by itself; that is no failure of the daemon.
    """

    operation: str
    outcome: str
    steps: tuple[Step, ...]
    refusable: bool = False


class Has(Struct, frozen=True):
    """A list with such a member."""

    pattern: Any


class Json(Struct, frozen=True):
    """Base64 of JSON text like this."""

    pattern: Any


def ok(operation: str, request: Mapping[str, Any] | None = None, expect: Any = None, **more: Any) -> Scenario:
    """The operation answers."""
    return Scenario(operation, "ok", (Call(operation, request or {}, expect, **more),))


def refused(operation: str, error: str, request: Mapping[str, Any] | None = None, **more: Any) -> Scenario:
    """The operation answers with an error."""
    refusable = more.pop("refusable", False)
    return Scenario(operation, error, (Call(operation, request or {}, error=error, **more),), refusable)


def not_opened(operation: str, error: str, request: Mapping[str, Any] | None = None, **more: Any) -> Scenario:
    """The subscription is refused with an error."""
    refusable = more.pop("refusable", False)
    return Scenario(operation, error, (Subscribe(operation, request or {}, error=error, **more),), refusable)


def blob(data: bytes | str) -> str:
    """As the wire has it."""
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def document(value: Any) -> str:
    """A shadow's document as the wire has it."""
    return blob(json.dumps(value))


def fill(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with every `<name>` replaced. Raises KeyError for a name without a value."""
    if isinstance(value, str):
        whole = re.fullmatch(r"<(\w+)>", value)
        return values[whole[1]] if whole else re.sub(r"<(\w+)>", lambda found: str(values[found[1]]), value)
    if isinstance(value, Mapping):
        return {fill(name, values): fill(one, values) for name, one in value.items()}
    if isinstance(value, list):
        return [fill(one, values) for one in value]
    if isinstance(value, Has | Json):
        return type(value)(fill(value.pattern, values))
    return value


def differs(expected: Any, found: Any, where: str = "") -> str:
    """What is not as expected, "" if all is."""
    if expected is None:
        return ""
    if isinstance(expected, type):
        fits = isinstance(found, expected) and not (isinstance(found, str) and not found)
        return "" if fits else f"{where or 'the answer'} is {found!r}, no {expected.__name__}"
    if isinstance(expected, Json):
        return differs(expected.pattern, json.loads(base64.b64decode(found)), f"{where}(json)")
    if isinstance(expected, Has):
        fits = isinstance(found, list) and any(not differs(expected.pattern, one) for one in found)
        return "" if fits else f"{where or 'the answer'} has no {expected.pattern!r}: {found!r}"
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        wrong = (differs(one, found.get(name), f"{where}.{name}") for name, one in expected.items())
        return next((one for one in wrong if one), "")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        wrong = (differs(*pair, f"{where}[{at}]") for at, pair in enumerate(zip(expected, found, strict=True)))
        return next((one for one in wrong if one), "")
    return "" if expected == found else f"{where or 'the answer'} is {found!r}, not {expected!r}"
