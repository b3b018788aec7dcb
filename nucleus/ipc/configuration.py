"""GetConfiguration, UpdateConfiguration, SubscribeToConfigurationUpdate (spec/ipc.md 3.3, spec/nucleus.md 7.5).

Every component may read every component's configuration and write its own, except the accessControl in it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nucleus.core import configuration
from nucleus.ipc import call
from nucleus.wire import rpc

_FORBIDDEN = "accesscontrol"
_MISSING = object()


def get(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """A map comes back as it is, a leaf as `{"<its name>": value}`; names match whatever their case."""
    name = request.get("componentName") or one.caller
    path = _path(name, request.get("keyPath", []))
    value = _value(one.ports.configuration.tree, path)
    if value is _MISSING:
        raise _not_found(name, path)
    if isinstance(value, dict):
        return {"componentName": name, "value": value}
    return {"componentName": name, "value": {_spelling(one.ports.configuration.tree, path): value}}


def update(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Merges into the caller's own configuration, all of it or, when one leaf is newer than the request, nothing."""
    key_path, value = request.get("keyPath", []), request["valueToMerge"]
    if not key_path and not isinstance(value, dict):
        raise rpc.OperationError("InvalidArgumentsError", "cannot update the root: valueToMerge is no object")
    first = key_path[:1] or list(value)
    if any(key.lower() == _FORBIDDEN for key in first):
        raise rpc.OperationError(
            "InvalidArgumentsError", "cannot update accessControl: only a deployment may change it"
        )
    _check_storable(key_path, value)
    store = one.ports.configuration
    path = _path(one.caller, key_path)
    stamp = int(request["timestamp"] * 1000)
    newer = _newer(store.tree, path, value, stamp)
    if newer is not None:
        what = f"cannot update {'/'.join(newer[3:])}: it was changed after the request's timestamp {stamp} ms"
        raise rpc.OperationError("FailedUpdateConditionCheckError", what)
    _, changes = configuration.merge(store.tree, path, value, stamp, f"component:{one.caller}")
    if changes:
        store.commit(changes)
    return {}


def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Sends the path of every leaf whose value changes at or below the key path."""
    name = request.get("componentName") or one.caller
    path = _path(name, request.get("keyPath", []))
    store = one.ports.configuration
    if _value(store.tree, path) is _MISSING:
        raise _not_found(name, path)
    one.on_end(store.watch(path, _Watch(one, name, path).changed))
    return {}


class _Watch:
    """Tells changed values from mere new timestamps: it remembers the values it last saw."""

    def __init__(self, one: call.Call, component: str, path: configuration.Path) -> None:
        self._call = one
        self._component = component
        self._path = path
        self._seen = _value(one.ports.configuration.tree, path)

    def changed(self, changes: tuple[configuration.Change, ...]) -> None:
        before, self._seen = self._seen, _value(self._call.ports.configuration.tree, self._path)
        for change in changes:
            below = change.path[len(self._path) :]
            if _same(_dig(before, below), _dig(self._seen, below)):
                continue
            event = {"componentName": self._component, "keyPath": list(change.path[3:])}
            self._call.emit({"configurationUpdateEvent": event})


def _path(component: str, key_path: list[str]) -> configuration.Path:
    return ("services", component, "configuration", *key_path)


def _value(tree: configuration.Tree, path: configuration.Path) -> Any:
    """The plain value, _MISSING if there is none; a component without configuration has an empty one."""
    try:
        return configuration.get(tree, path)
    except KeyError:
        if len(path) > 3:
            return _MISSING
    try:
        configuration.get(tree, path[:2])
    except KeyError:
        return _MISSING
    return {}


def _spelling(tree: configuration.Tree, path: configuration.Path) -> str:
    """The last name of a path as it is stored."""
    siblings = configuration.get(tree, path[:-1])
    return next((name for name in siblings if name.lower() == path[-1].lower()), path[-1])


def _newer(tree: configuration.Tree, path: configuration.Path, value: Any, stamp: int) -> configuration.Path | None:
    """The first leaf that the value would write and that is newer than the stamp."""
    if isinstance(value, dict) and value:
        found = (_newer(tree, (*path, name), inner, stamp) for name, inner in value.items())
        return next((one for one in found if one is not None), None)
    try:
        return path if configuration.leaf(tree, path).stamp > stamp else None
    except KeyError:
        return None


def _dig(value: Any, path: configuration.Path) -> Any:
    for name in path:
        if not isinstance(value, dict):
            return _MISSING
        spelled = next((key for key in value if key.lower() == name.lower()), None)
        value = value[spelled] if spelled is not None else _MISSING
    return value


def _same(one: Any, other: Any) -> bool:
    """Equality that tells true from 1 and 1 from 1.0."""
    if one is _MISSING or other is _MISSING:
        return one is other
    return msgspec.json.encode(one) == msgspec.json.encode(other)


def _check_storable(key_path: list[str], value: Any) -> None:
    """Refuses text with lone surrogates, which the journal cannot hold, and empty names."""
    try:
        msgspec.json.encode([key_path, value])
    except (UnicodeEncodeError, RecursionError) as error:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot update the configuration: {error}") from None
    if not all(key_path):
        raise rpc.OperationError("InvalidArgumentsError", "cannot update the configuration: a name in keyPath is empty")


def _not_found(component: str, path: configuration.Path) -> rpc.OperationError:
    where = "/".join((component, *path[3:]))
    return rpc.OperationError(
        "ResourceNotFoundError", "Key not found", resourceType="configuration", resourceName=where
    )
