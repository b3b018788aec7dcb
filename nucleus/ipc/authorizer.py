"""Who may do what: the accessControl of every component, read again when it changes (spec/ipc.md 3.2).

Decisions are remembered by caller, service, operation and resource, and forgotten with any change of a policy. Open
subscriptions are not asked again, as in the original.
"""

from __future__ import annotations

from typing import Any

from nucleus.core import authorization, configuration
from nucleus.ipc import ports
from nucleus.wire import rpc

_DECISIONS_KEPT = 4096
_LONGEST = 65_535  # characters of a resource: none that is served is longer; matching one takes time, keeping it memory
_KEPT_LONGEST = 1024


class Authorizer:
    """Answers for all connections; `close` stops watching the configuration."""

    def __init__(self, store: ports.Configuration, log: ports.Log) -> None:
        self._store = store
        self._log = log
        self._policies: authorization.Policies | None = None
        self._decisions: dict[tuple[str, str, str, str], bool] = {}
        self.close = store.watch(("services",), self._changed)

    def require(self, caller: str, service: str, operation: str, resource: str) -> None:
        """Raises UnauthorizedError with the original's words."""
        if len(resource) > _LONGEST:
            what = f"cannot use {resource[:40]!r}…: it has more than {_LONGEST} characters"
            raise rpc.OperationError("InvalidArgumentsError", what)
        key = (caller, service, operation, resource)
        allowed = self._decisions.get(key)
        if allowed is None:
            allowed = self._decide(*key)
        if allowed:
            return
        if service == authorization.MQTT:
            raise rpc.OperationError("UnauthorizedError", "Not Authorized")
        why = authorization.explain(self._current(), caller, service, rpc.NAMESPACE + operation, resource)
        raise rpc.OperationError("UnauthorizedError", why)

    def _decide(self, caller: str, service: str, operation: str, resource: str) -> bool:
        if len(self._decisions) >= _DECISIONS_KEPT:
            self._decisions.clear()
        allowed = authorization.allows(self._current(), caller, service, rpc.NAMESPACE + operation, resource)
        if len(resource) <= _KEPT_LONGEST:
            self._decisions[caller, service, operation, resource] = allowed
        return allowed

    def _current(self) -> authorization.Policies:
        if self._policies is None:
            self._policies = authorization.read(policies(self._store.tree))
            for problem in self._policies.problems:
                self._log.warning("ipc.policy_ignored", why=problem)
        return self._policies

    def _changed(self, changes: tuple[configuration.Change, ...]) -> None:
        if any(_touches_policies(change) for change in changes):
            self._policies = None
            self._decisions.clear()


def _touches_policies(change: configuration.Change) -> bool:
    path = tuple(name.lower() for name in change.path)
    if len(path) < 4:  # services/<component>/configuration/accessControl lies below it
        return len(path) < 3 or path[2] == "configuration"
    return path[2:4] == ("configuration", "accesscontrol")


def policies(tree: configuration.Tree) -> dict[str, Any]:
    """Component -> its accessControl, as far as it has one."""
    components = configuration.subtree(tree, ("services",)).nodes.values()
    found = {}
    for name, _ in components:
        node = configuration.find(tree, ("services", name, "configuration", "accessControl"))
        if node is not None:
            found[name] = configuration.plain(node)
    return found
