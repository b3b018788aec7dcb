"""What a disk may hold when power was lost after some of the recorded operations.

Model: bytes written since a file's last fsync may be there, missing, or torn in the middle; names changed since their
directory's last fsync may be old or new. (A rename is atomic; what was fsynced stays.)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONTENT = ("lost", "torn", "written")
NAMES = ("old", "new")
FOLDERS = ("config", "deployments", "packages/recipes", "alts")
LINK = b"\0link to "  # begins the content of what is a symbolic link


class _File:
    def __init__(self, data: bytes) -> None:
        self.synced = data
        self.current = data


class Disk:
    """Files below one folder, as far as `host` writes them."""

    def __init__(self, root: Path) -> None:
        self._durable: dict[str, _File] = {str(path): _File(_read(path)) for path in _durable_files(root)}
        self._volatile = dict(self._durable)

    def perform(self, operation: dict[str, Any]) -> None:
        path = operation["path"]
        match operation["op"]:
            case "open":
                file = self._volatile.setdefault(path, _File(b""))
                if operation["truncate"]:
                    file.current = b""
            case "write":
                self._volatile[path].current += bytes.fromhex(operation["data"])
            case "truncate":
                self._volatile[path].current = self._volatile[path].current[: operation["length"]]
            case "rename":
                self._volatile[operation["to"]] = self._volatile.pop(path)
            case "symlink":
                self._volatile[path] = _File(LINK + operation["target"].encode())
            case "unlink":
                self._volatile.pop(path, None)
            case "fsync":
                self._sync(path)
            case "sync":
                for file in self._volatile.values():
                    file.synced = file.current
                self._durable = dict(self._volatile)

    def _sync(self, path: str) -> None:
        if path in self._volatile:
            self._volatile[path].synced = self._volatile[path].current
            return
        inside = [name for name in {*self._durable, *self._volatile} if str(Path(name).parent) == path]
        for name in inside:
            if name in self._volatile:
                self._durable[name] = self._volatile[name]
            else:
                self._durable.pop(name, None)

    def files(self, names: str, content: str) -> dict[str, bytes]:
        """The files after the loss of power, for one of NAMES and one of CONTENT."""
        entries = self._durable if names == "old" else self._volatile
        return {path: _content(file, content) for path, file in entries.items()}


def states(before: Path, operations: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every different disk that the loss of power after any operation may leave, with a name for it."""
    disk = Disk(before)
    inside = tuple(f"{before}/{folder}" for folder in FOLDERS)
    operations = [one for one in operations if one["path"].startswith(inside) or one["op"] == "sync"]
    seen: set[int] = set()
    for number, operation in enumerate(operations):
        disk.perform(operation)
        label = f"{number} {operation['op']} {Path(operation['path']).name}"
        for names, content in itertools.product(NAMES, CONTENT):
            files = disk.files(names, content)
            key = hash(tuple(sorted(files.items())))
            if key not in seen:
                seen.add(key)
                yield f"{label}, names {names}, data {content}", files


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _durable_files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        links = (path for path in (root / folder).glob("*") if path.is_symlink())
        files = (path for path in (root / folder).rglob("*") if path.is_file() and not path.is_symlink())
        yield from itertools.chain(links, files if folder != "alts" else _launches(root))


def _launches(root: Path) -> Iterator[Path]:
    """Of a launch directory only the file that says it is complete: the rest lies behind a barrier before it."""
    yield from (path for path in (root / "alts").glob("*") if path.is_file() and not path.is_symlink())
    yield from (path for path in (root / "alts").glob("*/python") if not path.parent.is_symlink())


def _read(path: Path) -> bytes:
    return LINK + str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()


def restore(root: Path, files: dict[str, bytes]) -> None:
    """Makes the folders hold these files and links, and no others; what a launch directory holds besides stays."""
    for path in list(_durable_files(root)):
        path.unlink()
    for name, data in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if data.startswith(LINK):
            Path(name).symlink_to(data.removeprefix(LINK).decode())
        else:
            Path(name).write_bytes(data)


def _content(file: _File, content: str) -> bytes:
    if content == "lost":
        return file.synced
    if content == "written":
        return file.current
    kept = len(file.synced) if file.current.startswith(file.synced) else 0
    return file.current[: kept + (len(file.current) - kept) // 2]
