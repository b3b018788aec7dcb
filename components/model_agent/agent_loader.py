"""Loads a model that may be loaded, and measures what that takes: memory and time, remembered by the bytes' digest."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import agent_budget
import agent_check
import agent_entry
import agent_gate
import agent_growth
import agent_guard
import agent_load
import agent_memory
import agent_registry
import agent_settings

_LOAD_BYTES_PER_S = (
    50e6  # for a model that was never loaded; a detector of 20 MB takes 0.25 s when it is loud (ml.md 7.3)
)


@dataclass(frozen=True)
class Serving:
    """A loaded model and whose it is: exchanged as one, so that no answer carries another model's version.

    `model` is an agent_guard.Guard; `size` is that of the model's file, `digest` the key of its copy, `loaded_bytes` what
    loading it took, `signer` as in agent_entry.Held.
    """

    model: Any
    component: str
    version: str
    size: int = 0
    digest: str = ""
    loaded_bytes: int = 0
    settings: agent_settings.Settings = agent_settings.DEFAULT
    signer: str = ""

    @property
    def memory_bytes(self) -> int:
        """What it counts: loading it, and what requests made it keep."""
        return self.loaded_bytes + int(self.model.growth.grown_bytes)


@dataclass(frozen=True)
class Package:
    """A model that may be loaded: its bytes, its manifest, and what the table says of it; `limit_s` 0: however long it takes."""

    alias: str
    held: agent_entry.Held
    manifest: agent_check.Manifest
    model: bytes
    settings: agent_settings.Settings
    limit_s: float = 0.0

    def left(self, started: float) -> Package:
        """With the rest of its limit, if it has one, at least a tenth of a second; `started` by time.monotonic()."""
        rest_s = max(0.1, self.limit_s - (time.monotonic() - started))
        return dataclasses.replace(self, limit_s=rest_s) if self.limit_s else self


def read_settings(text: str) -> agent_settings.Settings:
    """Settings as the table keeps them; what a newer agent wrote and this one cannot read is the default."""
    try:
        return agent_settings.from_text(text)
    except agent_settings.SettingsError:
        return agent_settings.DEFAULT


def pinned(held: agent_entry.Held) -> bool:
    """Whether the model is never to leave the memory."""
    return read_settings(held.settings).pinned


class Loader:
    """Loads one model at a time (the caller sees to that): what others allocate meanwhile would be measured as its own."""

    def __init__(self, registry: agent_registry.Registry) -> None:
        self._registry = registry
        self._allocator = agent_memory.Allocator()
        self._foreign: set[str] = set()  # keys of what was measured in another process only
        self.told = self._allocator.told  # what this system cannot do; empty if nothing

    def fetch(self, alias: str, held: agent_entry.Held) -> Package:
        """The agent's own copy; raises agent_registry.StoreError, agent_check.RefusedError."""
        data, model = self._registry.copy(held.key)
        return Package(alias, held, agent_check.read_manifest(data), model, read_settings(held.settings))

    def need(self, alias: str, held: agent_entry.Held, size: int, isolated: bool) -> agent_budget.Need:
        """What a model with a file of `size` bytes is going to take: as measured last time, or an estimate."""
        known = self._registry.costs.get(held.key)
        if known is None:
            return agent_budget.Need(alias, held.version, agent_budget.estimate(size, isolated), False)
        return agent_budget.Need(alias, held.version, known.memory_bytes, True)

    def seconds(self, key: str, size: int) -> float:
        """How long a load is going to take: as measured last time, or an estimate."""
        known = self._registry.costs.get(key)
        return known.load_s if known is not None else size / _LOAD_BYTES_PER_S

    def measure(self, package: Package) -> agent_budget.Need:
        """What it takes, by loading it in a process of its own, which harms nobody; raises agent_check.RefusedError."""
        started, own = time.monotonic(), package.settings.isolated
        apart = dataclasses.replace(
            package.settings, isolated=True, worker_memory_bytes=package.settings.worker_memory_bytes if own else 0
        )
        model: Any = _loaded(dataclasses.replace(package, settings=apart))
        size = len(package.model)
        memory = agent_memory.process_bytes(model.pid) + size if own else max(model.loaded_bytes, size)
        model.close()
        self._registry.learn(package.held.key, agent_registry.Cost(memory, round(time.monotonic() - started, 3)))
        self._foreign.add(package.held.key)
        return agent_budget.Need(package.alias, package.held.version, memory, True)

    def load(self, package: Package) -> Serving:
        """Loaded, checked and warm; raises agent_check.RefusedError."""
        held, size = package.held, len(package.model)
        with agent_growth.undisturbed():
            self._allocator.trim()
            gauge, started = agent_memory.Gauge(self._allocator), time.monotonic()
            model: Any = _loaded(package)
            load_s = time.monotonic() - started
            self._allocator.trim()
            memory = max(gauge.taken(), size)  # at least the weights: requests that end meanwhile give memory back, too
        if getattr(model, "pid", 0):
            memory = agent_memory.process_bytes(model.pid) + size  # and what it starts from again
        known = self._registry.costs.get(held.key)
        if held.key in self._foreign:
            self._foreign.discard(held.key)
            known = None
        memory = agent_budget.learned(known.memory_bytes if known else 0, memory)
        costly = known.costly if known else ()
        self._registry.learn(held.key, agent_registry.Cost(memory, round(load_s, 3), costly))
        largest = max(agent_growth.total_bytes(inputs) for inputs, _ in package.manifest.golden)
        growth = agent_growth.Growth(agent_growth.gauge(self._allocator), largest, costly)
        guard = agent_guard.Guard(model, growth)
        return Serving(guard, held.component, held.version, size, held.key, memory, package.settings, held.signer)

    def remember(self, serving: Serving) -> None:
        """For later loads: which of its requests make it keep too much."""
        known = self._registry.costs.get(serving.digest)
        if known is not None:
            self._registry.learn(serving.digest, dataclasses.replace(known, costly=serving.model.growth.costly))

    def free(self, collect: bool = False) -> None:
        """Gives the memory of models that were let go back to the system; `collect` as agent_memory's `trim`."""
        self._allocator.trim(collect)


def _loaded(package: Package) -> Any:
    if not package.limit_s:
        return agent_load.load(package.manifest, package.model, package.settings)
    return agent_gate.bounded(
        "load with its golden samples",
        package.limit_s,
        lambda: agent_load.load(package.manifest, package.model, package.settings),
    )
