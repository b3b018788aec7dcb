"""The configuration of `aws.greengrass.ShadowManager`: which shadows are synchronised, when, and how much is served.

The keys are the original's (spec/nucleus.md 7.8). What cannot be understood is left out and told; the rest holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import shadow, shadow_sync

RESERVED = "AWSManagedGreengrassV2Deployment"  # the nucleus itself answers there
_DELAY_S = 300.0
_LONGEST_S = 366 * 86_400.0

Ref = tuple[str, str]  # thing, shadow name; the classic shadow has the empty name


class Strategy(Struct, frozen=True):
    """`periodic_s` None: in real time."""

    periodic_s: float | None = None


class Settings(Struct, frozen=True):
    """`synchronized` are the shadows to keep the same; rates are per second."""

    synchronized: frozenset[Ref] = frozenset()
    direction: shadow_sync.Direction = shadow_sync.Direction.BOTH
    strategy: Strategy = Strategy()
    outbound_rate: float = 100
    total_rate: float = 200
    thing_rate: float = 20
    size_bytes: int = shadow.SIZE_BYTES
    problems: tuple[str, ...] = ()


def read(configuration: Mapping[str, Any], core_thing: str) -> Settings:
    """The settings in force; `problems` are sentences about what was left out. A device without a cloud has no thing."""
    found = _lowered(configuration)
    problems: list[str] = []
    synchronize = _object(found, "synchronize", problems)
    limits = _object(found, "rateLimits", problems)
    size_bytes = _number(found, "shadowDocumentSizeLimitBytes", shadow.SIZE_BYTES, shadow.LARGEST_BYTES, problems)
    return Settings(
        synchronized=frozenset(_refs(synchronize, core_thing, problems)),
        direction=_direction(synchronize, problems),
        strategy=_strategy(_object(found, "strategy", problems), problems),
        outbound_rate=_number(limits, "maxOutboundSyncUpdatesPerSecond", 100, 100_000, problems),
        total_rate=_number(limits, "maxTotalLocalRequestsRate", 200, 100_000, problems),
        thing_rate=_number(limits, "maxLocalRequestsPerSecondPerThing", 20, 100_000, problems),
        size_bytes=int(size_bytes),
        problems=tuple(problems),
    )


def _refs(synchronize: Mapping[str, Any], core_thing: str, problems: list[str]) -> Iterator[Ref]:
    """The shadows of the device's own thing, and of others by a map or a list."""
    if isinstance(synchronize.get("corething"), Mapping):
        if core_thing:
            yield from _of_thing(core_thing, synchronize["corething"], problems)
    elif synchronize.get("corething") is not None:
        problems.append("synchronize.coreThing must be an object")
    things = synchronize.get("shadowdocumentsmap") or {}
    if isinstance(things, Mapping):
        for thing, one in things.items():
            yield from _of_thing(thing, one, problems)
    else:
        problems.append("synchronize.shadowDocumentsMap must be an object")
    listed = synchronize.get("shadowdocuments") or []
    if not isinstance(listed, list):
        problems.append("synchronize.shadowDocuments must be a list")
        return
    for one in listed:
        thing = _lowered(one).get("thingname") if isinstance(one, Mapping) else None
        yield from _of_thing(thing, one, problems)


def _of_thing(thing: Any, one: Any, problems: list[str]) -> Iterator[Ref]:
    """The classic shadow unless it is declined, and the named ones."""
    if not isinstance(thing, str) or not isinstance(one, Mapping):
        problems.append(f"synchronize names a thing that cannot be read: {str(one)[:80]}")
        return
    given = _lowered(one)
    names = given.get("namedshadows") or []
    if not isinstance(names, list):
        problems.append(f"namedShadows of {thing} must be a list")
        names = []
    classic = str(given.get("classic", True)).lower() != "false"
    for name in ([""] if classic else []) + names:
        fault = shadow.fault_of(thing, name) if isinstance(name, str) else f"{name!r} is no name"
        if name == RESERVED:
            fault = f"{RESERVED} is the nucleus's own"
        if fault:
            problems.append(f"cannot synchronize a shadow of {thing[:40]!r}: {fault}")
        else:
            yield thing, name


def _direction(synchronize: Mapping[str, Any], problems: list[str]) -> shadow_sync.Direction:
    word = str(synchronize.get("direction", shadow_sync.Direction.BOTH.value))
    for one in shadow_sync.Direction:
        if word.lower() == one.value.lower():
            return one
    allowed = ", ".join(one.value for one in shadow_sync.Direction)
    problems.append(f"synchronize.direction is {word[:40]!r}, not one of {allowed}")
    return shadow_sync.Direction.BOTH


def _strategy(strategy: Mapping[str, Any], problems: list[str]) -> Strategy:
    word = str(strategy.get("type", "realTime"))
    if word.lower() == "realtime":
        return Strategy()
    if word.lower() != "periodic":
        problems.append(f"strategy.type is {word[:40]!r}, not realTime or periodic")
        return Strategy()
    return Strategy(_number(strategy, "delay", _DELAY_S, _LONGEST_S, problems))


def _object(found: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    value = found.get(key.lower())
    if value is not None and not isinstance(value, Mapping):
        problems.append(f"{key} must be an object")
    return _lowered(value) if isinstance(value, Mapping) else {}


def _number(found: Mapping[str, Any], key: str, usual: float, most: float, problems: list[str]) -> float:
    value = found.get(key.lower(), usual)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0
    if 0 < number <= most and not isinstance(value, bool):
        return number
    problems.append(f"{key} is {str(value)[:40]}, not a number above 0 and up to {most:g}; {usual:g} is used")
    return usual


def _lowered(value: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): one for key, one in value.items()}
