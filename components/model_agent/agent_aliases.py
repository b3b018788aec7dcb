"""What each alias answers with, and the rules by which that changes: offer, release, withdraw, lease.

An alias is the `name` in model.json. It belongs to the component that brought its model until that component is gone.
- offer: what serves already is accepted at once. Otherwise the model is checked while the old one keeps answering, kept
  durably, and only then exchanged, between two requests. A refusal changes nothing that answers.
- release: the component was stopped. Nothing changes but that the lease starts to run: on an upgrade the old version is
  stopped before the new one is offered, and in between somebody must answer.
- withdraw: the component is gone; the alias is empty afterwards.
- lease: a released component that offers nothing for this long is taken for gone (for nuclei without an Uninstall step).
  It counts the agent's own run time, so a device that was off for a day starts with its models.
Releases and withdrawals of a version that is not the one offered last are late news and change nothing.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_check
import agent_load
import agent_registry
import agent_settings
import agent_signature

MODEL_LIMIT_BYTES = 512 * 1024 * 1024
MANIFEST_LIMIT_BYTES = 1024 * 1024
_COMPONENT_LIMIT_CHARACTERS = 128


@dataclass(frozen=True)
class Serving:
    """A loaded model and whose it is: exchanged as one, so that no answer carries another model's version."""

    model: agent_check.Model
    component: str
    version: str
    size: int = 0  # bytes of the model's file


class TakenError(agent_check.RefusedError):
    """The alias answers already, for the caller or for somebody else."""


class Aliases:
    """All aliases of one agent. Reading is free of locks; changes happen one at a time."""

    def __init__(self, registry: agent_registry.Registry, lease_s: float, root: Path | None = None) -> None:
        self._registry = registry
        self._root = root  # of the nucleus, where it says whom it trusts
        self._lease_s = lease_s
        self._serving: dict[str, Serving] = {}
        self._released_at: dict[str, float] = {}
        self._changing = threading.Lock()

    def restore(self) -> list[str]:
        """Loads what the registry names, before any offer; returns one line for each alias."""
        lines = [self._registry.repaired] if self._registry.repaired else []
        with self._changing:
            for alias, entry in list(self._registry.aliases.items()):
                lines.append(self._restore(alias, entry))
        return lines

    def serving(self, alias: str) -> Serving | None:
        """What answers for `alias`, or None; it stays usable after an exchange."""
        return self._serving.get(alias)

    def listed(self) -> list[dict[str, Any]]:
        """One record for each alias, as `list` answers it."""
        return [
            {
                "alias": alias,
                "component": entry.component,
                "version": entry.serving.version,
                "offered": entry.offered,
                "previous": entry.previous.version if entry.previous else "",
                "ready": alias in self._serving,
                "released": entry.released,
                "owner": entry.owner,
                "source": entry.source,
            }
            for alias, entry in sorted(self._registry.aliases.items())
        ]

    def load(self, owner: str, alias: str, folder: Path) -> str:
        """Serves the model in `folder` under an alias nobody has, for a door's callers; raises TakenError, RefusedError.

        The alias need not be the name in model.json. A signature is judged for the component that its manifest names.
        """
        started = time.monotonic()
        with self._changing:
            if alias in self._registry.aliases:
                raise TakenError(f"the alias {alias} is used by {self._registry.aliases[alias].component}")
            data = _read(folder / "model.json", MANIFEST_LIMIT_BYTES)
            return self._accept(owner, agent_check.read_manifest(data).version, data, folder, started, alias)

    def offer(
        self,
        component: str,
        version: str,
        folder: Path,
        settings: agent_settings.Settings = agent_settings.DEFAULT,
    ) -> str:
        """Serves the model in `folder` and returns a line that says so; raises agent_check.RefusedError."""
        if not 0 < len(component) <= _COMPONENT_LIMIT_CHARACTERS or not 0 < len(version) <= _COMPONENT_LIMIT_CHARACTERS:
            raise agent_check.RefusedError("component and version must be 1 to 128 characters")
        started = time.monotonic()
        with self._changing:
            data = _read(folder / "model.json", MANIFEST_LIMIT_BYTES)
            manifest = agent_check.read_manifest(data)
            alias, entry = manifest.name, self._registry.aliases.get(manifest.name)
            if entry and entry.component != component and not entry.released:
                raise agent_check.RefusedError(f"the alias {alias} belongs to {entry.component}, which is running")
            try:
                return self._accept(component, version, data, folder, started, settings=settings)
            except agent_check.RefusedError as error:
                raise agent_check.RefusedError(f"{error}; {self._after_refusal(alias, component, version)}") from error

    def release(self, component: str, version: str) -> str:
        """Starts the lease of what this component serves."""
        with self._changing:
            alias = self._offered(component, version)
            if alias is None:
                return f"{component} {version} serves nothing here"
            entry = self._registry.aliases[alias]
            self._set(alias, entry, released=True)
            return f"{component} {version} was released; {alias} still answers with {entry.serving.version}"

    def withdraw(self, component: str, version: str, only: str = "") -> str:
        """Empties the alias of this component, if `version` is the one it offered last; `only` picks one of several."""
        with self._changing:
            alias = self._offered(component, version, only)
            if alias is None:
                return f"{component} {version} serves nothing here"
            self._forget(alias)
            return f"{component} {version} was withdrawn; {alias} answers no more"

    def expire(self) -> list[str]:
        """Forgets aliases whose lease is over (0 seconds: never); returns a line for each."""
        with self._changing:
            before = time.monotonic() - self._lease_s
            over = [alias for alias, at in self._released_at.items() if self._lease_s and at <= before]
            lines = [f"{self._registry.aliases[alias].component} did not come back; {alias} is empty" for alias in over]
            for alias in over:
                self._forget(alias)
            return lines

    def _accept(
        self,
        component: str,
        version: str,
        data: bytes,
        folder: Path,
        started: float,
        chosen: str = "",
        settings: agent_settings.Settings = agent_settings.DEFAULT,
    ) -> str:
        manifest = agent_check.read_manifest(data)
        model = _read(folder / manifest.file, MODEL_LIMIT_BYTES)
        alias = chosen or manifest.name
        entry = self._registry.aliases.get(alias)
        serving = agent_registry.Held(version, agent_registry.digest(data, model))
        what = f"{component} {version}"
        if entry and entry.component == component and entry.serving == serving and alias in self._serving:
            self._set(alias, entry, offered=version, released=False)
            return f"{alias} already answers with {what}"
        files = {"model.json": data, manifest.file: model}
        try:
            signed = agent_signature.signed_for(folder, self._root) if chosen else (component, version)
            agent_signature.judge(*signed, files, folder, self._root)
        except agent_signature.UnsignedError as error:
            raise agent_check.RefusedError(f"{error.code}: {error}") from error
        loaded = agent_load.load(manifest, model, settings)
        self._registry.keep(data, manifest.file, model)
        same = entry is not None and entry.component == component
        previous = None if entry is None or not same or entry.serving == serving else entry.serving
        self._registry.put(alias, agent_registry.Entry(component, version, serving, previous, source=str(folder)))
        self._serving[alias] = Serving(loaded, component, version, len(model))
        self._released_at.pop(alias, None)
        before = f"before: {entry.component} {entry.serving.version}; " if entry else ""
        return f"{alias} now answers with {what} ({before}checked in {time.monotonic() - started:.2f} s)"

    def _after_refusal(self, alias: str, component: str, version: str) -> str:
        """Notes that the component is alive although its model is not, and says what answers now."""
        entry = self._registry.aliases.get(alias)
        if entry is None:
            return f"nothing answers for {alias}"
        if entry.component == component:
            self._set(alias, entry, offered=version, released=False)
        return f"{alias} still answers with {entry.component} {entry.serving.version}"

    def _restore(self, alias: str, entry: agent_registry.Entry) -> str:
        reasons = ""
        for held in (entry.serving, entry.previous):
            if held is None:
                continue
            try:
                data, model = self._registry.copy(held.key)
                loaded = agent_check.load(agent_check.read_manifest(data), model)
            except (agent_registry.StoreError, agent_check.RefusedError) as error:
                reasons += f"; {entry.component} {held.version} cannot serve: {error}"
                continue
            self._serving[alias] = Serving(loaded, entry.component, held.version, len(model))
            if held is not entry.serving:
                self._registry.put(alias, dataclasses.replace(entry, serving=held, previous=None))
            if entry.released:
                self._released_at[alias] = time.monotonic()
            return f"{alias} answers with {entry.component} {held.version}{reasons}"
        self._forget(alias)
        return f"{alias} is empty{reasons}"

    def _offered(self, component: str, version: str, only: str = "") -> str | None:
        for alias, entry in self._registry.aliases.items():
            if (entry.component, entry.offered) == (component, version) and only in ("", alias):
                return alias
        return None

    def _set(self, alias: str, entry: agent_registry.Entry, *, released: bool, offered: str = "") -> None:
        new = dataclasses.replace(entry, offered=offered or entry.offered, released=released)
        if new != entry:
            self._registry.put(alias, new)
        if released:
            self._released_at.setdefault(alias, time.monotonic())
        else:
            self._released_at.pop(alias, None)

    def _forget(self, alias: str) -> None:
        self._serving.pop(alias, None)
        self._released_at.pop(alias, None)
        self._registry.remove(alias)


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # never through a link
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise agent_check.RefusedError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise agent_check.RefusedError(f"{path} is larger than {limit_bytes} bytes")
    return data
