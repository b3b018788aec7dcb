"""The agent's durable store: which model serves which alias, and its own copies of the models.

Below one folder:

    registry.json          {"aliases": {alias: Entry}}, replaced as a whole (write new, fsync, rename, fsync directory)
    models/<key>/          model.json and the model file of one offer; <key> is the SHA-256 over both files' bytes
    lock                   held while an agent lives, so that two never write here

A copy is complete before registry.json names it, and folders nothing names are removed, so a crash at any moment leaves
the state before or after. A registry.json that cannot be read is put aside, never overwritten.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEY_CHARACTERS = 64  # hex SHA-256
OWNERS = {"marram:repository": "local", "door:edge-manager": "local"}  # no component can be called so


class StoreError(Exception):
    """The store cannot be used; the message says why."""


@dataclass(frozen=True)
class Held:
    """A model the agent keeps a copy of: the version of the component that brought it, and the copy's key."""

    version: str
    key: str


@dataclass(frozen=True)
class Entry:
    """What is known about one alias.

    `offered` is the version its component offered last, accepted or not: only that one's release and withdrawal count.
    `released` is whether that version's component was stopped. `previous` serves if `serving`'s copy is damaged.
    `source` is the folder the model came from. A door that loads models for its callers is a `component`, too (OWNERS).
    """

    component: str
    offered: str
    serving: Held
    previous: Held | None = None
    released: bool = False
    source: str = ""

    @property
    def owner(self) -> str:
        """Who may change the alias: `deployment` (its component's), or `local` (callers of the door that loaded it)."""
        return OWNERS.get(self.component, "deployment")


class Registry:
    """The store in `folder`; made by `open`."""

    def __init__(self, folder: Path, lock: int, aliases: dict[str, Entry], repaired: str) -> None:
        self.aliases = aliases
        self.repaired = repaired
        self._folder = folder
        self._lock = lock

    @classmethod
    def open(cls, folder: Path, *, wait_s: float = 10.0) -> Registry:
        """Reads the store, made if absent; waits up to `wait_s` for a predecessor to end, then raises StoreError."""
        (folder / "models").mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(folder / "lock", wait_s)
        file, repaired = folder / "registry.json", ""
        aliases: dict[str, Entry] = {}
        try:
            aliases = _entries(json.loads(file.read_bytes()))
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            file.replace(folder / "registry.json.unreadable")
            repaired = f"registry.json could not be read ({error}); kept as registry.json.unreadable, starting empty"
        return cls(folder, lock, aliases, repaired)

    def close(self) -> None:
        """Lets the next agent in."""
        os.close(self._lock)

    def put(self, alias: str, entry: Entry) -> None:
        """Durably sets one alias; its copies must have been kept before."""
        self._save({**self.aliases, alias: entry})

    def remove(self, alias: str) -> None:
        """Durably forgets one alias."""
        self._save({name: entry for name, entry in self.aliases.items() if name != alias})

    def keep(self, manifest: bytes, name: str, model: bytes) -> str:
        """Durably copies an offer and returns its key; a copy that is there and whole is used again."""
        key = digest(manifest, model)
        target = self._folder / "models" / key
        if target.is_dir() and self._whole(key):
            return key
        shutil.rmtree(target, ignore_errors=True)
        new = target.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        _write(new / "model.json", manifest)
        _write(new / name, model)
        _sync(new)
        new.rename(target)
        _sync(target.parent)
        return key

    def copy(self, key: str) -> tuple[bytes, bytes]:
        """The bytes of model.json and of the model kept under `key`; raises StoreError if they are damaged or gone."""
        try:
            manifest = (self._folder / "models" / key / "model.json").read_bytes()
            model = (self._folder / "models" / key / _model_file(manifest)).read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
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

    def _save(self, aliases: dict[str, Entry]) -> None:
        text = json.dumps({"aliases": {name: dataclasses.asdict(entry) for name, entry in aliases.items()}}, indent=1)
        new = self._folder / "registry.json.new"
        _write(new, text.encode())
        new.replace(self._folder / "registry.json")
        _sync(self._folder)
        self.aliases = aliases
        self._sweep()

    def _sweep(self) -> None:
        entries = self.aliases.values()
        named = {held.key for entry in entries for held in (entry.serving, entry.previous) if held is not None}
        for folder in (self._folder / "models").iterdir():
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)


def digest(manifest: bytes, model: bytes) -> str:
    """The key of an offer: hex SHA-256 over the length of model.json (8 bytes, big-endian), model.json and the model."""
    return hashlib.sha256(len(manifest).to_bytes(8, "big") + manifest + model).hexdigest()


def _model_file(manifest: bytes) -> str:
    name = json.loads(manifest)["file"]
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"model.json names the file {name!r}")
    return name


def _entries(given: Any) -> dict[str, Entry]:
    return {alias: _entry(fields) for alias, fields in given["aliases"].items()}


def _entry(given: dict[str, Any]) -> Entry:
    previous = given["previous"]
    return Entry(
        component=str(given["component"]),
        offered=str(given["offered"]),
        serving=_held(given["serving"]),
        previous=None if previous is None else _held(previous),
        released=bool(given["released"]),
        source=str(given.get("source", "")),
    )


def _held(given: dict[str, Any]) -> Held:
    key = str(given["key"])
    if len(key) != _KEY_CHARACTERS or not key.isalnum():
        raise ValueError(f"{key!r} is no key")
    return Held(str(given["version"]), key)


def _lock(path: Path, wait_s: float) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                raise StoreError(f"another model agent holds {path}") from None
        threading.Event().wait(0.05)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
