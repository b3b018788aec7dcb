"""The agent's durable store: which model serves which alias, and its own copies of the models.

Below one folder:

    registry.json          {"aliases": {alias: Entry}, "costs": {key: Cost}}, replaced as a whole (write new, fsync, rename,
                           fsync directory); Entry as in agent_entry.py. Keys a reader does not know are ignored, and the
                           ones an older agent needs are always written, so that either reads the other's.
    models/<key>/          model.json and the model file of one offer; <key> is the SHA-256 over both files' bytes
    lock                   held while an agent lives, so that two never write here

A copy is complete before registry.json names it, and folders nothing names are removed, so a crash at any moment leaves
the state before or after. They are removed before anything is written: what a copy left that found the disk full must not
keep it full. A registry.json that cannot be read is put aside, never overwritten. An agent that takes over
(agent_takeover.py) reads the store without the lock and writes nothing before it `own`s it.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_changes
import agent_durable
import agent_entry

_KEY_CHARACTERS = 64  # hex SHA-256
_READ_AT_START = ("registry.json", "verdicts.json")
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR))
_BORROWED = -1  # in place of the lock's descriptor
_RESERVE_BYTES = 64 * 1024  # so that a release or a withdrawal finds room on a full disk: a hundred aliases
_COSTS_LIMIT = 64  # what was measured last; enough for every model a small device ever had


class StoreError(Exception):
    """The store cannot be used; the message says why."""


@dataclass(frozen=True)
class Cost:
    """What a model took when loaded last: memory, and the time until it was warm; `costly` as in agent_growth.Growth."""

    memory_bytes: int
    load_s: float
    costly: tuple[int, ...] = ()


class Registry:
    """The store in `folder`; made by `open`."""

    def __init__(
        self,
        folder: Path,
        lock: int,
        aliases: dict[str, agent_entry.Entry],
        costs: dict[str, Cost],
        repaired: str = "",
    ) -> None:
        self.aliases = self._stored = aliases
        self.costs = costs  # by key; kept longer than the copy, so that a second load is judged beforehand
        self.repaired = repaired
        self.folder = folder
        self.lock = lock  # its descriptor
        self.changes = agent_changes.Changes()
        self._writing = threading.Lock()
        self._frozen = self._unwritten = False
        self._seen = _state(folder)

    @classmethod
    def open(cls, folder: Path, *, wait_s: float = 10.0) -> Registry:
        """Reads the store, made if absent; waits up to `wait_s` for a predecessor to end, then raises StoreError."""
        (folder / "models").mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = agent_changes.held(folder / "lock", wait_s)
        except TimeoutError as error:
            raise StoreError(str(error)) from None
        try:
            agent_durable.reserve(folder / "registry.json", _RESERVE_BYTES)
            return cls(folder, lock, *_read(folder))
        except ValueError as error:
            (folder / "registry.json").replace(folder / "registry.json.unreadable")
            repaired = f"registry.json could not be read ({error}); kept as registry.json.unreadable, starting empty"
        return cls(folder, lock, {}, {}, repaired)

    @classmethod
    def borrow(cls, folder: Path) -> Registry:
        """Reads the store of an agent that lives; what is put goes nowhere before `own`. Raises StoreError."""
        try:
            made = cls(folder, _BORROWED, {}, {})  # what comes to be while it is read is not current
            made.aliases, made.costs = _read(folder)
            made._stored = made.aliases
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read registry.json: {error}") from error
        return made

    def own(self, lock: int) -> None:
        """Who had the lock gave it: from now on this agent writes."""
        self.lock = lock
        if self._unwritten:
            self._save(self.aliases)

    def freeze(self, wait_s: float) -> bool:
        """Nothing changes any more until `thaw`; False if a change is still under way after `wait_s`."""
        if not self.changes.freeze(wait_s):
            return False
        with self._writing:
            self._frozen = True
        self._seen = _state(self.folder)
        return True

    def thaw(self) -> None:
        """This agent goes on."""
        self._frozen = False
        self.changes.thaw()

    def is_current(self) -> bool:
        """Whether what an agent reads at its start is as it was when it was read, or frozen."""
        return _state(self.folder) == self._seen

    def close(self) -> None:
        """Lets the next agent in."""
        os.close(self.lock)

    def put(self, alias: str, entry: agent_entry.Entry) -> None:
        """Durably sets one alias; its copies must have been kept before. What is only of this run costs no write."""
        aliases, before = {**self.aliases, alias: entry}, self.aliases.get(alias)
        if before is not None and dataclasses.replace(before, evicted=entry.evicted) == entry:
            self.aliases = aliases
            return
        self._save(aliases)

    def remove(self, alias: str) -> None:
        """Durably forgets one alias."""
        self._save({name: entry for name, entry in self.aliases.items() if name != alias})

    def learn(self, key: str, cost: Cost) -> None:
        """Remembers what a model took; written with the next change of an alias, because it can be measured again."""
        costs = {name: known for name, known in self.costs.items() if name != key} | {key: cost}
        self.costs = dict(list(costs.items())[-_COSTS_LIMIT:])

    def keep(self, manifest: bytes, name: str, model: bytes, key: str = "") -> str:
        """Durably copies an offer and returns its `key`, its digest; a copy that is there and whole is used again.

        Raises OSError, then nothing of it stays; agent_durable.FullError where there is no room.
        """
        key = key or digest(manifest, model)
        target = self.folder / "models" / key
        if target.is_dir() and self._whole(key):
            return key
        shutil.rmtree(target, ignore_errors=True)
        self._sweep(self._stored)
        new = target.with_suffix(".new")
        with agent_durable.room(f"a copy of {name} ({len(model) / 1e6:.1f} MB)", self.folder):
            try:
                new.mkdir(mode=0o700)
                agent_durable.write_file(new / "model.json", manifest)
                agent_durable.write_file(new / name, model)
                agent_durable.sync(new)
                new.rename(target)
                agent_durable.sync(target.parent)
            except OSError:
                shutil.rmtree(new, ignore_errors=True)
                raise
        return key

    def copy(self, key: str) -> tuple[bytes, bytes]:
        """The bytes of model.json and of the model kept under `key`; raises StoreError if they are damaged or gone.

        OSError where this moment lacks what it takes to read them: that says nothing about the copy.
        """
        try:
            manifest = (self.folder / "models" / key / "model.json").read_bytes()
            model = (self.folder / "models" / key / _model_file(manifest)).read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in _SCARCE:
                raise
            raise StoreError(f"its copy cannot be read: {error}") from error
        if digest(manifest, model) != key:
            raise StoreError("its copy is damaged (its bytes are not those that were accepted)")
        return manifest, model

    def _whole(self, key: str) -> bool:
        try:
            self.copy(key)
        except StoreError:
            return False
        return True

    def _save(self, aliases: dict[str, agent_entry.Entry]) -> None:
        with self._writing:
            if self._frozen:
                raise agent_changes.FrozenError("another process of the model agent takes over; try again")
            self._unwritten = self.lock == _BORROWED
            if not self._unwritten:
                self._replace(aliases)
            self.aliases = aliases

    def _replace(self, aliases: dict[str, agent_entry.Entry]) -> None:
        self._sweep(self._stored, aliases)
        written = {name: _written(entry) for name, entry in aliases.items()}
        costs = {key: dataclasses.asdict(cost) for key, cost in self.costs.items()}
        content = {"aliases": written, "costs": costs}
        agent_durable.write(self.folder / "registry.json", content, reserve_bytes=_RESERVE_BYTES)
        self._stored = aliases
        self._sweep(aliases)

    def _sweep(self, *named: dict[str, agent_entry.Entry]) -> None:
        """Removes the copies, whole or half, that none of these tables names."""
        keys = {held.key for aliases in named for entry in aliases.values() for held in entry.kept()}
        for folder in (self.folder / "models").iterdir():
            if folder.name not in keys:
                shutil.rmtree(folder, ignore_errors=True)


def digest(manifest: bytes, model: bytes) -> str:
    """The key of an offer: hex SHA-256 over the length of model.json (8 bytes, big-endian), model.json and the model."""
    found = hashlib.sha256(len(manifest).to_bytes(8, "big") + manifest)
    found.update(model)  # not added up: that would copy all of it
    return found.hexdigest()


def _read(folder: Path) -> tuple[dict[str, agent_entry.Entry], dict[str, Cost]]:
    """What registry.json says; raises ValueError."""
    try:
        given = json.loads((folder / "registry.json").read_bytes())
        return _entries(given), _costs(given)
    except FileNotFoundError:
        return {}, {}
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{error}") from error


def _state(folder: Path) -> list[tuple[int, int, int]]:
    """Changes with every replacement of a file that an agent reads when it starts."""
    found = [(folder / name).stat() for name in _READ_AT_START if (folder / name).exists()]
    return [(one.st_ino, one.st_mtime_ns, one.st_size) for one in found]


def _model_file(manifest: bytes) -> str:
    name = json.loads(manifest)["file"]
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"model.json names the file {name!r}")
    return name


def _entries(given: Any) -> dict[str, agent_entry.Entry]:
    return {alias: _entry(fields) for alias, fields in given["aliases"].items()}


def _entry(given: dict[str, Any]) -> agent_entry.Entry:
    component, source = str(given["component"]), str(given.get("source", ""))
    more: dict[str, Any] = {
        name: _held(given[name], component, source)
        for name in ("previous", "candidate", "withheld", "dropped", "heir")
        if given.get(name) is not None
    }
    more |= {name: str(given.get(name, "")) for name in ("held_by", "reason", "refusal")}
    more |= {"released": bool(given["released"]), "refused": bool(given.get("refused"))}
    past = {"before": [given["previous"]] if given.get("previous") else []} | given  # the release before wrote none
    more |= {name: tuple(_held(each, component, source) for each in past.get(name, ())) for name in ("before", "left")}
    return agent_entry.Entry(
        component=component,
        offered=str(given["offered"]),
        serving=_held(given["serving"], component, source),
        owner=str(given.get("owner") or agent_entry.owner(component)),
        **more,
    )


def _held(given: dict[str, Any], component: str, source: str) -> agent_entry.Held:
    """A model; what the release before did not write is its entry's."""
    key = str(given["key"])
    if len(key) != _KEY_CHARACTERS or not key.isalnum():
        raise ValueError(f"{key!r} is no key")
    return agent_entry.Held(
        version=str(given["version"]),
        key=key,
        component=str(given.get("component") or component),
        settings=str(given.get("settings", "")),
        source=str(given.get("source", source)),
        signer=str(given.get("signer", "")),
    )


def _written(entry: agent_entry.Entry) -> dict[str, Any]:
    """An entry as JSON: `source` as the release before reads it, nothing of this run."""
    written = {name: value for name, value in dataclasses.asdict(entry).items() if name != "evicted"}
    return {**written, "source": entry.serving.source}


def _costs(given: dict[str, Any]) -> dict[str, Cost]:
    costs = given.get("costs", {}).items()
    return {key: Cost(int(of["memory_bytes"]), float(of["load_s"]), tuple(of.get("costly", ()))) for key, of in costs}
