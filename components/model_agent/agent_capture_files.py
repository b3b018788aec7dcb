"""The files of agent_capture.py: lines and tensors written whole or not at all, the oldest removed when space is needed.

A unit is a `<number>.jsonl` and its `<number>.tensors`; numbers grow over the whole store, so the smallest is the oldest. No
number is used twice, not even when the store was empty at a restart (`.last` keeps it then): a unit that is in the cloud has its
number in its key. Tensors are on disk before the line that names them, and lines end with a newline: what lacks either was
never acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import agent_capture_lines
import agent_durable

_BLOCK = agent_capture_lines.BLOCK
_DIGITS = 12
_UNITS_PER_STORE = 16  # how finely the bound is kept
_MARK = ".last"  # the last number, written when no unit tells it any more

Item = agent_capture_lines.Item
Record = agent_capture_lines.Record


@dataclass
class _Unit:
    path: Path
    size: int = 0

    @property
    def tensors(self) -> Path:
        return self.path.with_suffix(".tensors")


class Files:
    """Captures below `root` (folder, prefix and fleet); one thread at a time. `sync` makes a descriptor's file durable.

    At the bound the oldest units go; without `evicts` nothing does, and what has no room is refused.
    """

    def __init__(
        self,
        root: Path,
        device: str,
        disk_bytes: int,
        embed_bytes: int,
        sync: Callable[[int], None] = os.fsync,
        *,
        evicts: bool = True,
    ) -> None:
        self._root = root
        self._device = device
        self._disk_bytes = disk_bytes
        self._embed_bytes = embed_bytes
        self._sync = sync
        self._evicts = evicts
        self._last = 0  # number
        self._marked = False
        self._units: dict[int, _Unit] = {}  # by number, the oldest first
        self._open: dict[Path, int] = {}  # the unit that a folder is written to

    def open(self, known: Callable[[str], None]) -> str:
        """Cuts off what a crash left half and tells the ids that are here; returns a line about it, or ""."""
        cut = 0
        found = sorted((int(path.stem), path) for path in self._root.rglob("*.jsonl") if path.stem.isdigit())
        for number, path in found:
            unit = self._units[number] = _Unit(path)
            cut += _repair(unit, known)
        self._last = max((self._read_mark(), *self._units))
        for orphan in [path for path in self._root.rglob("*.tensors") if not path.with_suffix(".jsonl").exists()]:
            shutil.rmtree(orphan)  # killed before the first line, or while the unit was removed
        return f"{cut} bytes of captures that were never acknowledged were cut off" if cut else ""

    def write(self, records: Sequence[Record]) -> list[str]:
        """Keeps the records; for each why not, "" when it is safe."""
        errors = [""] * len(records)
        touched: dict[int, list[int]] = {}
        for index, record in enumerate(records):
            try:
                touched.setdefault(self._append(record), []).append(index)
            except (OSError, ValueError) as error:
                errors[index] = str(error)
        for number, indexes in touched.items():
            try:
                _synced(self._units[number].path, self._sync)
            except (OSError, KeyError) as error:
                for index in indexes:
                    errors[index] = f"its file could not be made durable: {error}"
        return errors

    def used_bytes(self) -> int:
        """What the store takes now."""
        return sum(unit.size for unit in self._units.values()) + (_BLOCK if self._marked else 0)

    def closed(self, now: float, *, everything: bool = False) -> list[Path]:
        """Lines that nothing is added to any more, the oldest first: this call closes those of past hours, or `everything`."""
        hour = "" if everything else datetime.fromtimestamp(now, UTC).strftime("%Y/%m/%d/%H")
        self._open = {at: number for at, number in self._open.items() if hour and at.as_posix().endswith(hour)}
        written = set(self._open.values())
        return [unit.path for number, unit in sorted(self._units.items()) if number not in written]

    def remove(self, path: Path) -> None:
        """Removes a closed unit by the path of its lines; one that is gone already is no error. Raises OSError."""
        number = int(path.stem)
        if number not in self._units:
            return
        if number == max(self._units):  # not needed where the oldest go by the bound: a newer one comes then
            agent_durable.write(self._root / _MARK, self._last)
            self._marked = True
        self._remove(self._units.pop(number))

    def _append(self, record: Record) -> int:
        folder = self._root / record.model / datetime.fromtimestamp(record.at, UTC).strftime("%Y/%m/%d/%H")
        number, unit = self._unit(folder)
        line = agent_capture_lines.line_of(record, self._device, unit.tensors.name, self._embed_bytes)
        if unit.size and unit.size + line.cost > self._disk_bytes // _UNITS_PER_STORE:
            del self._open[folder]
            number, unit = self._unit(folder)
            line = agent_capture_lines.line_of(record, self._device, unit.tensors.name, self._embed_bytes)
        self._make_room(line.cost + (0 if unit.size else 2 * _BLOCK), number)
        try:
            self._put(unit, line)
        except OSError:
            self._undo(unit, line)
            raise
        is_new, self._units[number] = not unit.size, unit
        unit.size += line.cost + (2 * _BLOCK if is_new else 0)
        if is_new:
            _synced(folder, self._sync, os.O_RDONLY)
        return number

    def _put(self, unit: _Unit, line: agent_capture_lines.Line) -> None:
        if line.files:
            self._durable_folder(unit.tensors)
        for name, data in line.files.items():
            self._store(unit.tensors.parent / name, data)
        if line.files:
            _synced(unit.tensors, self._sync, os.O_RDONLY)
        if not unit.size:
            self._durable_folder(unit.path.parent)
        _append(unit.path, line.text)

    def _undo(self, unit: _Unit, line: agent_capture_lines.Line) -> None:
        """Nothing stays of a record that could not be written: nobody would count it."""
        for name in line.files:
            with contextlib.suppress(OSError):
                (unit.tensors.parent / name).unlink()
        if not unit.size:
            with contextlib.suppress(OSError):
                self._remove(unit)

    def _unit(self, folder: Path) -> tuple[int, _Unit]:
        number = self._open.get(folder)
        if number is not None and number in self._units:
            return number, self._units[number]
        number = self._last = self._open[folder] = self._last + 1
        return number, _Unit(folder / f"{number:0{_DIGITS}}.jsonl")

    def _make_room(self, size: int, keep: int) -> None:
        """Removes the oldest units; raises ValueError if that is not enough, or if nothing may be removed."""
        if size > self._disk_bytes:
            raise ValueError(f"it needs {size} bytes, the store of captures has {self._disk_bytes}")
        used = self.used_bytes() + size + _BLOCK  # of the mark
        if used > self._disk_bytes and not self._evicts:
            raise ValueError(f"the store of captures is full: {self.used_bytes()} bytes wait to be sent")
        for number in sorted(self._units):
            if used <= self._disk_bytes:
                return
            if number != keep:
                used -= self._units[number].size
                self._remove(self._units.pop(number))

    def _read_mark(self) -> int:
        try:
            found = agent_durable.read(self._root / _MARK)
            self._marked = found is not None
            return int(found or 0)
        except (ValueError, TypeError):
            return int(time.time())  # damaged: beyond what any store can have counted

    def _remove(self, unit: _Unit) -> None:
        unit.path.unlink(missing_ok=True)
        shutil.rmtree(unit.tensors, ignore_errors=True)
        self._open = {folder: number for folder, number in self._open.items() if folder != unit.path.parent}
        for folder in unit.path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue  # it could not be made
            except OSError:
                return  # there is more in it

    def _store(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            self._sync(descriptor)

    def _durable_folder(self, folder: Path) -> None:
        """Makes a folder that is still there after a power cut: each new name is synced in the folder that holds it."""
        if folder.is_dir():
            return
        self._durable_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _synced(folder.parent, self._sync, os.O_RDONLY)


def identities(path: Path) -> list[str]:
    """The ids in the lines of a unit. Raises OSError."""
    read = (agent_capture_lines.read(line, set()) for line in path.read_bytes().splitlines(keepends=True))
    return [identity for identity in read if identity]


def _append(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(text):
                written += os.write(descriptor, text[written:])
        except OSError:
            os.ftruncate(descriptor, before)  # half a line would spoil the next one
            raise
    finally:
        os.close(descriptor)


def _synced(path: Path, sync: Callable[[int], None], flags: int = os.O_WRONLY) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _repair(unit: _Unit, known: Callable[[str], None]) -> int:
    data = unit.path.read_bytes()
    good, named = 0, set[str]()
    for line in data.splitlines(keepends=True):
        identity = agent_capture_lines.read(line, named)
        if identity:
            good += len(line)
            known(identity)
            continue
        if good + len(line) < len(data):  # damaged in the middle: not ours to cut, what follows is whole
            good += len(line)
    if good < len(data):
        with unit.path.open("r+b") as file:
            file.truncate(good)
            os.fsync(file.fileno())
    unit.size = 2 * _BLOCK + good
    for file_path in sorted(unit.tensors.iterdir()) if unit.tensors.is_dir() else ():
        if f"{unit.tensors.name}/{file_path.name}" in named:
            unit.size += agent_capture_lines.cost_of(file_path.stat().st_size)
        else:
            file_path.unlink()
    return len(data) - good
