"""The sequential rule of the original (spec/nucleus.md 3.2 and 3.3) as an oracle: one queue, one component at a time.

It shares no code with nucleus/core/negotiate.py but the meaning of ranges; `resolve_one` is 3.3.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

from msgspec import Struct

from nucleus.core import version

Registry = Mapping[str, Mapping[str, Mapping[str, str]]]  # name -> version -> {dependency: range}
Requirements = Mapping[str, str]  # requirer -> range
LIMIT = 3000  # components met, before the rule counts as endless

NOT_MET, CIRCULAR = "COMPONENT_VERSION_REQUIREMENTS_NOT_MET", "COMPONENT_CIRCULAR_DEPENDENCY_ERROR"


class Failed(Struct, frozen=True):
    """`name` and `asked` are what had no answer; empty for other failures."""

    code: str
    name: str = ""
    asked: dict[str, str] = {}
    endless: bool = False


class Local(Struct, frozen=True):
    """What a device has: versions that run, versions with a recipe in the store, and whether it asks a cloud."""

    running: dict[str, str] = {}
    stored: dict[str, tuple[str, ...]] = {}
    cloud: bool = True


def resolve_one(registry: Registry, local: Local, name: str, asked: Requirements) -> str | None:
    """3.3: the running version, else the highest stored; the cloud's highest before it, unless asked locally."""
    ranges = [version.Range.parse(text) for text in asked.values()]

    def fitting(some: tuple[str, ...]) -> list[str]:
        read = [(version.Version.parse(each), each) for each in some]
        return [each for one, each in sorted(read) if version.satisfies(one, ranges)]

    running = fitting((local.running[name],)) if name in local.running else []
    candidate = next(iter(running or reversed(fitting(local.stored.get(name, ())))), None)
    if not local.cloud or (candidate is not None and "LOCAL_DEPLOYMENT" in asked):
        return candidate
    offered = fitting(tuple(registry.get(name, {})))
    return offered[-1] if offered else candidate


class Oracle:
    """`play()` gives {component: version} or a Failed."""

    def __init__(self, registry: Registry, roots: Mapping[str, Mapping[str, str]], local: Local | None = None) -> None:
        self.registry, self.roots, self.local = registry, roots, local or Local()
        self.constraints: dict[str, dict[str, str]] = collections.defaultdict(dict)
        self.resolved: dict[str, str] = {}
        self.met = 0

    def play(self) -> dict[str, str] | Failed:
        for group, components in self.roots.items():
            for name, exact in components.items():
                self.constraints[name][group] = f"={exact}"
        for components in self.roots.values():  # the deployment's own group first
            for name in components:
                failed = self._breadth_first(name)
                if failed is not None:
                    return failed
        return dict(self.resolved) if self._has_order() else Failed(CIRCULAR)

    def _breadth_first(self, target: str) -> Failed | None:
        queue = collections.deque([target])
        while queue:
            name = queue.popleft()
            if not self.constraints[name]:
                continue  # vanished while it waited
            self.met += 1
            if self.met > LIMIT:
                return Failed(NOT_MET, endless=True)
            found = resolve_one(self.registry, self.local, name, self.constraints[name])
            if found is None:
                return Failed(NOT_MET, name, dict(self.constraints[name]))
            if found != self.resolved.get(name):
                queue.extend(self._take(name, found))
        return None

    def _take(self, name: str, exact: str) -> list[str]:
        again = self._withdraw(name)
        self.resolved[name] = exact
        for dependency, text in self.registry[name][exact].items():
            self.constraints[dependency][name] = text
            again.append(dependency)
        return list(dict.fromkeys(again))

    def _withdraw(self, name: str) -> list[str]:
        """Takes back what the resolved version of `name` contributed; who is asked for by nobody goes, and so on."""
        left = []
        for dependency in self.registry[name].get(self.resolved.pop(name, ""), {}):
            self.constraints[dependency].pop(name, None)
            left += [dependency] if self.constraints[dependency] else self._withdraw(dependency)
        return left

    def _has_order(self) -> bool:
        waiting = {name: set(self.registry[name][exact]) for name, exact in self.resolved.items()}
        while waiting:
            ready = [name for name, needs in waiting.items() if not needs & waiting.keys()]
            if not ready:
                return False
            for name in ready:
                del waiting[name]
        return True
