"""Who the certificates belong to: the newest snapshot, policies compiled on demand, and those who wait for the next one.

An unknown certificate is not refused at once: the service may have issued it a moment ago, its snapshot being on the way.
"""

from __future__ import annotations

from collections.abc import Callable

from cloud.core import access
from cloud.mqtt import port

_EMPTY = port.Snapshot(0, {}, {})


class Principals:
    """`report` is told of policies that cannot be read: their principals get no rights from them."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._snapshot = _EMPTY
        self._compiled: dict[tuple[str, ...], access.Policy] = {}
        self._waiting: dict[object, tuple[str, Callable[[], None]]] = {}

    @property
    def version(self) -> int:
        return self._snapshot.version

    def find(self, fingerprint: str) -> port.PrincipalRecord | None:
        return self._snapshot.principals.get(fingerprint)

    def policy(self, record: port.PrincipalRecord) -> access.Policy:
        """The principal's policies as one; the same object until one of its documents changes."""
        compiled = self._compiled.get(record.policies)
        if compiled is None:
            documents = [self._snapshot.policies[name] for name in record.policies if name in self._snapshot.policies]
            compiled = self._compiled[record.policies] = self._compile(documents, record.policies)
        return compiled

    def replace(self, snapshot: port.Snapshot) -> None:
        """Takes a snapshot - an older one too: the service may have been restored - and wakes who waited for it."""
        changed = {
            name
            for name in snapshot.policies.keys() | self._snapshot.policies.keys()
            if snapshot.policies.get(name) != self._snapshot.policies.get(name)
        }
        self._compiled = {names: each for names, each in self._compiled.items() if changed.isdisjoint(names)}
        self._snapshot = snapshot
        known = [key for key, (fingerprint, _) in self._waiting.items() if fingerprint in snapshot.principals]
        for key in known:
            self._waiting.pop(key)[1]()

    def wait(self, key: object, fingerprint: str, known: Callable[[], None]) -> None:
        """Calls `known` once a snapshot has the fingerprint, unless `forget(key)` came first."""
        self._waiting[key] = (fingerprint, known)

    def forget(self, key: object) -> None:
        self._waiting.pop(key, None)

    def _compile(self, documents: list[dict[str, object]], names: tuple[str, ...]) -> access.Policy:
        try:
            return access.compile(documents)
        except ValueError as error:
            self._report(f"{error} (one of {', '.join(names)}); its principals are refused until it is corrected")
            return access.Policy(())
