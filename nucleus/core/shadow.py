"""Device shadows as values: what an update makes of one, what differs, and the messages that say so.

The device's local service and the cloud's share these rules. Source: spec/cloud.md 3.4, spec/nucleus.md 7.8 and iotdoc
device-shadow-document.md. `null` deletes a key or a section, arrays are replaced whole, each leaf has a timestamp in the
metadata, each accepted update raises the version by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

SECTIONS = ("desired", "reported")
SIZE_BYTES = 8 * 1024  # desired and reported together, metadata not counted
LARGEST_BYTES = 30 * 1024  # what a device's own limit may be raised to
THING_CHARACTERS = 128
NAME_CHARACTERS = 64
TOKEN_BYTES = 64
_DEPTH = 6  # levels below a section
_ALLOWED = re.compile(r"[a-zA-Z0-9:_-]+")


class Shadow(Struct, frozen=True):
    """State and metadata are `{section: tree}` without empty sections; a deleted shadow keeps its version."""

    state: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    version: int = 0
    updated_ms: int = 0
    deleted: bool = False


class Request(Struct, rename="camel", frozen=True):
    """A client's update. Members that we do not know are ignored: the Java nucleus sends two."""

    state: dict[str, Any]
    version: int | None = None
    client_token: str | None = None


class Refused(Struct, frozen=True):
    """A code of HTTP and one readable sentence, as `…/rejected` carries them."""

    code: int
    message: str


class _Token(Struct, rename="camel"):
    client_token: str | None = None


class _Part(Struct, rename="camel", omit_defaults=True):
    state: dict[str, Any]
    metadata: dict[str, Any]
    version: int


class _Answer(Struct, rename="camel", omit_defaults=True):
    timestamp: int
    version: int | None = None
    state: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    previous: _Part | None = None
    current: _Part | None = None
    code: int | None = None
    message: str | None = None
    client_token: str | None = None


def fault_of(thing: str, name: str) -> str:
    """Why there can be no such shadow, or ""; the classic shadow has the empty name."""
    if not _ALLOWED.fullmatch(thing) or len(thing) > THING_CHARACTERS:
        return f"the thing name {thing[:40]!r} must have 1 to {THING_CHARACTERS} characters of {_ALLOWED.pattern[:-1]}"
    if name and (not _ALLOWED.fullmatch(name) or len(name) > NAME_CHARACTERS):
        return (
            f"the shadow name {name[:40]!r} must have at most {NAME_CHARACTERS} characters of {_ALLOWED.pattern[:-1]}"
        )
    return ""


def client_token(payload: bytes) -> str | None:
    """The token of a request, also of one that cannot be read as such."""
    try:
        found = msgspec.json.decode(payload, type=_Token).client_token
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found if found is None or len(found.encode()) <= TOKEN_BYTES else None


def read(payload: bytes) -> Request | Refused:
    """The update in a payload, or why it is none."""
    try:
        request = msgspec.json.decode(payload, type=Request)
    except msgspec.ValidationError as error:
        return Refused(400, f"cannot update the shadow: {error}")
    except (msgspec.DecodeError, RecursionError):
        return Refused(400, "cannot update the shadow: the payload is not valid JSON")
    if len((request.client_token or "").encode()) > TOKEN_BYTES:
        return Refused(400, f"cannot update the shadow: clientToken has more than {TOKEN_BYTES} bytes")
    for name, section in request.state.items():
        if name not in SECTIONS:
            return Refused(400, f"cannot update the shadow: state contains an invalid node: {name[:64]!r}")
        if section is not None and not isinstance(section, dict):
            return Refused(400, f"cannot update the shadow: state.{name} is not an object")
        if _too_deep(section, _DEPTH):
            return Refused(400, f"cannot update the shadow: state.{name} has more than {_DEPTH} levels")
    return request


def update(
    current: Shadow,
    request: Request,
    now_ms: int,
    *,
    counted: tuple[str, ...] = SECTIONS,
    limit_bytes: int = SIZE_BYTES,
) -> Shadow | Refused:
    """The shadow after an update. `counted` are the sections that the size limit looks at."""
    if request.version is not None and request.version != current.version:
        return Refused(409, f"Version conflict: the shadow has version {current.version}, not {request.version}")
    state, metadata = dict(current.state), dict(current.metadata)
    for name, change in request.state.items():
        tree: dict[str, Any] = {}
        stamps: dict[str, Any] = {}
        if change is not None:
            tree, stamps = _merge(state.get(name, {}), metadata.get(name, {}), change, now_ms // 1000)
        for sections, value in ((state, tree), (metadata, stamps)):
            sections.pop(name, None)
            if tree:
                sections[name] = value
    size_bytes = sum(len(msgspec.json.encode(state[name])) for name in counted if name in state)
    if size_bytes > limit_bytes:
        return Refused(413, f"The shadow would have {size_bytes} bytes, more than {limit_bytes}")
    return Shadow(state, metadata, current.version + 1, now_ms)


def tombstone(held: Shadow, now_ms: int) -> Shadow:
    """The shadow after its deletion: its version goes on, so that no client takes its successor for it."""
    return Shadow(version=held.version + 1, updated_ms=now_ms, deleted=True)


def delta(tree: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `tree` (desired) that `other` (reported) does not have or has differently."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        held = other.get(key)
        if key in other and isinstance(value, dict) and isinstance(held, dict):
            if inner := delta(value, held):
                found[key] = inner
        elif key not in other or not same(held, value):
            found[key] = value
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; unlike in Python `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def accepted(request: Request, after: Shadow) -> bytes:
    """`update/accepted`: the changed part with its new timestamps."""
    stamped = {
        name: _chosen(after.metadata.get(name, {}), section) for name, section in request.state.items() if section
    }
    return _encode(
        _Answer(_s(after), after.version, request.state, stamped, client_token=request.client_token),
    )


def documents(before: Shadow, after: Shadow, token: str | None) -> bytes:
    """`update/documents`: the whole shadow before and after."""
    previous = _Part(before.state, before.metadata, before.version) if before.version and not before.deleted else None
    current = _Part(after.state, after.metadata, after.version)
    return _encode(_Answer(_s(after), previous=previous, current=current, client_token=token))


def difference(after: Shadow, token: str | None) -> bytes | None:
    """`update/delta`, or None when nothing differs."""
    desired = after.state.get("desired", {})
    found = delta(desired, after.state.get("reported", {}))
    if not found:
        return None
    stamped = _chosen(after.metadata.get("desired", {}), found)
    return _encode(_Answer(_s(after), after.version, found, stamped, client_token=token))


def whole(shadow: Shadow, token: str | None, now_ms: int) -> bytes:
    """`get/accepted`."""
    state = dict(shadow.state)
    if found := delta(state.get("desired", {}), state.get("reported", {})):
        state["delta"] = found
    return _encode(_Answer(now_ms // 1000, shadow.version, state, shadow.metadata, client_token=token))


def gone(version: int, token: str | None, now_ms: int) -> bytes:
    """`delete/accepted`."""
    return _encode(_Answer(now_ms // 1000, version, client_token=token))


def rejection(refused: Refused, token: str | None, now_ms: int) -> bytes:
    """`*/rejected`."""
    return _encode(_Answer(now_ms // 1000, code=refused.code, message=refused.message, client_token=token))


def _encode(answer: _Answer) -> bytes:
    return msgspec.json.encode(answer)


def _s(shadow: Shadow) -> int:
    return shadow.updated_ms // 1000


def _too_deep(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_too_deep(one, levels - 1) for one in inner)


def _merge(
    tree: Mapping[str, Any], stamps: Mapping[str, Any], change: Mapping[str, Any], at: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    tree, stamps = dict(tree), dict(stamps)
    for key, value in change.items():
        if value is None:
            tree.pop(key, None)
            stamps.pop(key, None)
        elif isinstance(value, dict):
            known = isinstance(tree.get(key), dict)
            tree[key], stamps[key] = _merge(tree[key] if known else {}, stamps[key] if known else {}, value, at)
        else:
            tree[key], stamps[key] = value, _stamp(value, at)
    return tree, stamps


def _stamp(value: Any, at: int) -> Any:
    if isinstance(value, list):
        return [_stamp(one, at) for one in value]
    if isinstance(value, dict):
        return {key: _stamp(one, at) for key, one in value.items()}
    return {"timestamp": at}


def _chosen(stamps: Mapping[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the leaves that `shape` has."""
    found: dict[str, Any] = {}
    for key, value in shape.items():
        if key not in stamps:
            continue
        found[key] = _chosen(stamps[key], value) if isinstance(value, dict) else stamps[key]
    return found
