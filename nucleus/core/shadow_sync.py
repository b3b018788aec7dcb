"""What is to be done to make a local shadow and its cloud shadow one again.

A three-way merge: the base is the state that both had when they were last the same. Rules: where only one side changed,
its change holds; where both changed the same key, the device decides what is reported and the cloud what is desired; a
shadow that was deleted on one side and edited or made anew on the other comes back. With a direction of one way, the
source is copied onto the other side. Applying a plan twice, in halves or late never does harm: the next plan starts from
what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from nucleus.core import shadow

_OWNERS = {"reported": "local", "desired": "cloud"}
_ABSENT: Any = object()
BACKOFF_S = 120.0

State = dict[str, Any]


class Direction(Enum):
    BOTH = "betweenDeviceAndCloud"
    UP = "deviceToCloud"
    DOWN = "cloudToDevice"


class Side(Struct, frozen=True):
    """A shadow that exists on one side."""

    state: State
    version: int


class Synced(Struct, frozen=True):
    """What is remembered of the last time both sides were the same: the versions, and the state; None: both had none."""

    base: State | None = None
    local_version: int = 0
    cloud_version: int = 0


class Change(Struct, frozen=True):
    """What one side is to do: merge `patch`, or delete the shadow (None)."""

    patch: State | None


class Plan(Struct, frozen=True):
    """The changes of each side (None: nothing), and the state both have then (None: no shadow)."""

    local: Change | None = None
    cloud: Change | None = None
    state: State | None = None


def plan(local: Side | None, cloud: Side | None, synced: Synced, direction: Direction = Direction.BOTH) -> Plan:
    """What makes both sides the same. A shadow that never was on both sides is made, not deleted."""
    if direction is Direction.UP:
        return Plan(cloud=_mirror(local, cloud, synced), state=local.state if local is not None else None)
    if direction is Direction.DOWN:
        return Plan(local=_mirror(cloud, local, synced), state=cloud.state if cloud is not None else None)
    if local is not None and cloud is not None:
        return _towards(local, cloud, merge(synced.base or {}, local.state, cloud.state))
    if local is not None:
        untouched = local.version == synced.local_version and _as_before(local, synced)
        return Plan(local=Change(None)) if untouched else Plan(cloud=Change(local.state), state=local.state)
    if cloud is not None:
        untouched = cloud.version == synced.cloud_version and _as_before(cloud, synced)
        return Plan(cloud=Change(None)) if untouched else Plan(local=Change(cloud.state), state=cloud.state)
    return Plan()


def merge(base: State, local: State, cloud: State) -> State:
    """The merged state of both sides, without empty sections."""
    merged = {}
    for section, owner in _OWNERS.items():
        found = _merge(base.get(section, {}), local.get(section, {}), cloud.get(section, {}), owner)
        if found:
            merged[section] = found
    return merged


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The update that makes `old` `new`: what is gone is null."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        held = old.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            if inner := difference(held, value):
                patch[key] = inner
        elif key not in old or not shadow.same(held, value):
            patch[key] = value
    return patch


def _merge(base: Any, local: Any, cloud: Any, owner: str) -> Any:
    if _same(local, cloud) or _same(cloud, base):
        return local
    if _same(local, base):
        return cloud
    if isinstance(local, dict) and isinstance(cloud, dict):
        before = base if isinstance(base, dict) else {}
        keys = [*local, *(key for key in cloud if key not in local)]
        found = {
            key: _merge(before.get(key, _ABSENT), local.get(key, _ABSENT), cloud.get(key, _ABSENT), owner)
            for key in keys
        }
        return {key: value for key, value in found.items() if value is not _ABSENT}
    return local if owner == "local" else cloud


def _same(one: Any, other: Any) -> bool:
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return shadow.same(one, other)


def _as_before(side: Side, synced: Synced) -> bool:
    """Versions may begin again when a shadow is made anew; the state tells then."""
    return synced.base is not None and shadow.same(side.state, synced.base)


def _towards(local: Side, cloud: Side, merged: State) -> Plan:
    changes = [_change(side.state, merged) for side in (local, cloud)]
    return Plan(local=changes[0], cloud=changes[1], state=merged)


def _change(old: State, new: State) -> Change | None:
    patch = {}
    for section in _OWNERS:
        if found := difference(old.get(section, {}), new.get(section, {})):
            patch[section] = found
    return Change(patch) if patch else None


def _mirror(source: Side | None, target: Side | None, synced: Synced) -> Change | None:
    """The change of the target; a source that never was does not delete."""
    if source is None:
        return Change(None) if target is not None and synced.base is not None else None
    return Change(source.state) if target is None else _change(target.state, source.state)


def backoff_s(failures: int, chance: float) -> float:
    """How long to wait after the n-th failure in a row; `chance` in [0, 1) spreads a fleet."""
    return float(min(2 ** min(failures, 10), BACKOFF_S)) * (0.5 + chance / 2)


def next_round_s(periodic_s: float | None, last_s: float | None, now_s: float) -> float:
    """When changes are carried over next: in real time at once, else a period after the last time."""
    return now_s if periodic_s is None or last_s is None else max(last_s + periodic_s, now_s)
