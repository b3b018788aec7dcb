"""GetConfiguration, UpdateConfiguration, SubscribeToConfigurationUpdate (spec/ipc.md 3.3, spec/nucleus.md 7.5).

Every component may read every component's configuration and write its own, except the accessControl in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from nucleus.core import configuration, errors, values
from nucleus.ipc import call
from nucleus.wire import rpc

_FORBIDDEN = "accesscontrol"
DEPTH_LIMIT = 100  # ours: what is walked recursively must end
_MISSING = object()


def get(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """A map comes back as it is, a leaf as `{"<its name>": value}`; names match whatever their case."""
    name, store = request.get("componentName") or one.caller, one.ports.configuration
    keys = tuple(request.get("keyPath", ()))
    if len(keys) > DEPTH_LIMIT:
        raise _not_found(name, _path(name, keys))
    return store.derived((name, *keys), lambda: _get(store.tree, name, _path(name, keys)))


def _get(tree: configuration.Tree, name: str, path: configuration.Path) -> dict[str, Any]:
    above = configuration.find(tree, path[:-1])
    entry = above.nodes.get(path[-1].lower()) if isinstance(above, configuration.Tree) else None
    if entry is not None and isinstance(entry[1], configuration.Leaf):
        return {"componentName": name, "value": {entry[0]: configuration.plain(entry[1])}}
    value = _value(tree, path)
    if value is _MISSING:
        raise _not_found(name, path)
    return {"componentName": name, "value": value}


def update(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Merges into the caller's own configuration, all of it or, when one leaf is newer than the request, nothing."""
    if one.ports.components.component(one.caller) is None:
        raise rpc.OperationError(
            "UnauthorizedError", f"{one.caller} is no component and has no configuration to update"
        )
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
    # A time of the future would move the device's clock there, and keep every deployment off these keys until then.
    stamp = min(int(request["timestamp"] * 1000), store.now())
    newer = _newer(store.tree, path, value, stamp)
    if newer is not None:
        what = f"cannot update {'/'.join(newer[3:])}: it was changed after the request's timestamp {stamp} ms"
        raise rpc.OperationError("FailedUpdateConditionCheckError", what)
    try:
        _, changes = configuration.merge(store.tree, path, value, stamp, f"component:{one.caller}")
    except errors.NucleusError as error:
        raise rpc.OperationError("InvalidArgumentsError", error.detail) from error
    if changes:
        store.commit(changes)
    return {}


def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Sends the path of every value that changes at or below the key path (the store tells no other writes)."""
    name = request.get("componentName") or one.caller
    path = _path(name, request.get("keyPath", []))
    store = one.ports.configuration
    if _value(store.tree, path) is _MISSING:
        raise _not_found(name, path)

    def tell(changes: tuple[configuration.Change, ...]) -> None:
        for change in changes:
            event = {"componentName": name, "keyPath": list(change.path[3:])}
            one.emit({"configurationUpdateEvent": event})

    one.on_end(store.watch(path, tell))
    return {}


def _path(component: str, key_path: Sequence[str]) -> configuration.Path:
    return ("services", component, "configuration", *key_path)


def _value(tree: configuration.Tree, path: configuration.Path) -> Any:
    """The plain value, _MISSING if there is none; a component without configuration has an empty one."""
    node = configuration.find(tree, path)
    if node is not None:
        return configuration.plain(node)
    known = len(path) == 3 and configuration.find(tree, path[:2]) is not None
    return {} if known else _MISSING


def _newer(tree: configuration.Tree, path: configuration.Path, value: Any, stamp: int) -> configuration.Path | None:
    """The first place where the write would lose against something newer than the stamp, by the rules of merge."""
    for length in range(1, len(path) + 1):
        node = configuration.find(tree, path[:length])
        if isinstance(node, configuration.Leaf) and node.stamp > stamp:
            return path[:length]
    if isinstance(value, dict):
        found = (_newer(tree, (*path, name), inner, stamp) for name, inner in value.items())
        return next((one for one in found if one is not None), None)
    node = configuration.find(tree, path)
    return path if node is not None and configuration.newest(node) > stamp else None


def _check_storable(key_path: list[str], value: Any) -> None:
    """Refuses text with lone surrogates, which the journal cannot hold, empty names, and what lies too deep."""
    if len(key_path) > DEPTH_LIMIT or values.is_deeper(value, DEPTH_LIMIT):
        what = f"cannot update the configuration: it would be more than {DEPTH_LIMIT} levels deep"
        raise rpc.OperationError("InvalidArgumentsError", what)
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
