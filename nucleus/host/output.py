"""Reads a child's output from a pipe without blocking and hands it on in lines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from nucleus.core import handover

MAX_LINE_BYTES = 8192  # a longer line is handed on in pieces
CHUNK_BYTES = 16 * 1024
MAX_DRAIN_BYTES = 1024 * 1024  # what a child may have left in its pipe; the kernel's default is 64 KiB


class Lines:
    """The read end of one pipe; `sink` gets the lines of one read together, without their ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, sink: Callable[[list[str]], None], rest: bytes = b""
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._sink = sink
        self._rest = rest
        if descriptor < 0:  # handed over after its end
            return
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read)

    def carry(self) -> handover.Pipe:
        """As the next process image takes it over."""
        return handover.Pipe(self._descriptor, self._rest)

    def drain(self) -> None:
        """Takes what lies in the pipe; it stays open for descendants of the child that still write."""
        for _ in range(MAX_DRAIN_BYTES // CHUNK_BYTES):
            if self._descriptor < 0 or not self._read():
                break
        self._flush()

    def close(self) -> None:
        if self._descriptor < 0:
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._flush()

    def _read(self) -> bool:
        """One read; False when there is nothing more for now, or ever."""
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        self._hand_on(lines)
        return True

    def _flush(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._hand_on([rest])

    def _hand_on(self, lines: list[bytes]) -> None:
        pieces = [
            line[start : start + MAX_LINE_BYTES].decode(errors="replace").rstrip("\r")
            for line in lines
            for start in range(0, max(len(line), 1), MAX_LINE_BYTES)
        ]
        if pieces:
            self._sink(pieces)
