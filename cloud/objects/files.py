"""Artifact bytes as files named by their SHA-256: `<root>/ab/abcd…`, written once, never changed.

Same bytes under two names are one file, and a component version refers to bytes that no later upload can alter.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from msgspec import Struct

BLOCK_BYTES = 256 * 1024


class Stored(Struct, frozen=True):
    """`sha256` and `md5` in hexadecimal."""

    sha256: str
    md5: str
    size: int


class Objects:
    """The store below `root`; the folder is made on first use."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def receive(self) -> Incoming:
        """A new upload; use it as a context manager, so that what was not kept is removed."""
        directory = self._root / "incoming"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Incoming(self._root, directory / secrets.token_hex(16))

    def path(self, sha256: str) -> Path:
        """Raises ValueError for anything but 64 hexadecimal digits: the name comes from outside."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"cannot name an object {sha256!r}: not a SHA-256 in hexadecimal")
        return self._root / sha256[:2] / sha256

    def read(self, sha256: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Yields `size` bytes from `start` (all by default) in blocks. Raises FileNotFoundError at the first block."""
        with self.path(sha256).open("rb") as stream:
            stream.seek(start)
            left = size if size is not None else 1 << 62
            while left > 0:
                block = stream.read(min(BLOCK_BYTES, left))
                if not block:
                    return
                left -= len(block)
                yield block

    def clean(self) -> int:
        """Removes what a killed predecessor left half uploaded; call before the servers listen."""
        left = list((self._root / "incoming").glob("*"))
        for path in left:
            path.unlink()
        return len(left)

    def sweep(self, kept: Collection[str]) -> int:
        """Removes objects whose SHA-256 is not in `kept`; only before the servers listen: an upload is kept first."""
        stale = [path for path in self._root.glob("[0-9a-f][0-9a-f]/*") if path.name not in kept]
        for path in stale:
            path.unlink()
        return len(stale)


class Incoming:
    """One upload on its way: `write` blocks, then `keep` durably or leave the block to discard it."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._stream: IO[bytes] = path.open("xb")
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def write(self, block: bytes) -> None:
        self._stream.write(block)
        self._sha256.update(block)
        self._md5.update(block)
        self.size += len(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def keep(self) -> Stored:
        """Makes the bytes durable under their digest."""
        stored = Stored(self._sha256.hexdigest(), self._md5.hexdigest(), self.size)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        target = self._root / stored.sha256[:2] / stored.sha256
        target.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.rename(target)
        _sync_directory(target.parent)
        _sync_directory(self._root)
        return stored

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
