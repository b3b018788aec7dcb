"""How the built-in components are, in the words of all others: they have no processes that a supervisor could watch.

In: the configuration tree (which of them there are) and `report` of the services behind them. Out: `health()`.
Forbidden: deciding anything; a built-in that fails never fails a deployment.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nucleus.core import builtin, configuration, status
from nucleus.core.lifecycle import Health, State


class BuiltIns:
    """`on_change` hears of a built-in whose state has changed."""

    def __init__(self, tree: Callable[[], configuration.Tree], on_change: Callable[[Health], None]) -> None:
        self._tree = tree
        self._on_change = on_change
        self._started_at = time.time()
        self._reported: dict[str, tuple[State, str, float]] = {}

    def health(self) -> dict[str, Health]:
        """The nucleus itself and every built-in component that is in force, by name."""
        found = {builtin.NUCLEUS: status.VERSION}
        tree = self._tree()
        found |= {name: status.VERSION for name in builtin.NAMES if builtin.in_force(tree, name)}
        return {name: self._one(name, version) for name, version in (found | builtin.recorded(tree)).items()}

    def report(self, name: str, state: State, reason: str = "") -> None:
        """Called by the service behind a built-in: RUNNING, or ERRORED with a reason for people."""
        if self._reported.get(name, (State.RUNNING, ""))[:2] == (state, reason):
            return
        self._reported[name] = (state, reason, time.time())
        self._on_change(self._one(name, status.VERSION))

    def _one(self, name: str, version: str) -> Health:
        usual = State.FINISHED if name == builtin.NUCLEUS else State.RUNNING
        state, reason, since_at = self._reported.get(name, (usual, "", self._started_at))
        return Health(name=name, version=version, state=state, settled=True, reason=reason, since_at=since_at)
