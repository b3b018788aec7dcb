"""System shared memory of the Open Inference Protocol: named regions of POSIX shared memory, for large tensors.

A client makes a segment (/dev/shm/KEY), registers it under a name and then sends only places in it; the answer may go
there, too. Everything that touches a region needs the agent's token (agent_oip_repository.py), because a name is easily
guessed. Segments are read and written like files and never mapped: one that a client cuts short is an error of its request,
where a mapped one would end the agent (SIGBUS).
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import agent_oip
import agent_shared

REGIONS_LIMIT = 64
_FOLDER = "/dev/shm"  # noqa: S108 - POSIX shared memory
_KEY = re.compile(r"/?(?!\.)[A-Za-z0-9._-]{1,250}")
_NAME_CHARACTERS = 256


@dataclass(frozen=True)
class Region:
    """A part of an open segment, in bytes."""

    name: str
    key: str
    offset: int
    size: int
    descriptor: int


class Regions:
    """All regions of the doors; `authorize` raises OipError for a wrong token. Methods may be called by many threads."""

    def __init__(self, authorize: Callable[[str], None]) -> None:
        self._authorize = authorize
        self._regions: dict[str, Region] = {}
        self._changing = threading.Lock()
        self._buffers = agent_shared.Buffers()

    def register(self, name: str, key: Any, offset: Any, size: Any, token: str) -> None:
        """Opens a segment; it stays open until it is unregistered."""
        self._authorize(token)
        whole = all(type(value) is int and value >= 0 for value in (offset, size))
        if not 0 < len(name) <= _NAME_CHARACTERS or not isinstance(key, str) or not _KEY.fullmatch(key) or not whole:
            raise agent_oip.wrong("a region needs a name, a key, an offset and a byte_size")
        with self._changing:
            if name in self._regions:
                raise agent_oip.OipError("ALREADY_EXISTS", f"shared memory region '{name}' already in manager")
            if len(self._regions) >= REGIONS_LIMIT:
                raise agent_oip.OipError("RESOURCE_EXHAUSTED", f"{REGIONS_LIMIT} shared memory regions are registered")
            self._regions[name] = Region(name, key, offset, size, _opened(key, offset + size))

    def unregister(self, name: str, token: str) -> None:
        """Forgets one region or, for "", all; unknown ones are no error (as in Triton)."""
        self._authorize(token)
        with self._changing:
            for each in [name] if name else list(self._regions):
                region = self._regions.pop(each, None)
                if region is not None:
                    os.close(region.descriptor)

    def status(self, name: str, token: str) -> list[dict[str, Any]]:
        """The records of one region or, for "", all."""
        self._authorize(token)
        with self._changing:
            if name and name not in self._regions:
                raise agent_oip.OipError("NOT_FOUND", f"Unable to find system shared memory region: '{name[:256]}'")
            return [
                {"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.size}
                for each in self._regions.values()
                if not name or each.name == name
            ]

    def read(self, place: agent_oip.Place, token: str) -> memoryview:
        """The bytes of a tensor there, copied."""
        data = self._buffers.take(place.size)
        descriptor, start = self._taken(place, token)
        try:
            count = os.preadv(descriptor, [data.data], start)
        finally:
            os.close(descriptor)
        if count != place.size:
            raise agent_oip.wrong(f"shared memory region '{place.region}' ends after {count} bytes of the tensor")
        return data.data

    def write(self, name: str, place: agent_oip.Place, data: bytes, token: str) -> None:
        """Puts the bytes of output `name` there."""
        if len(data) > place.size:
            raise agent_oip.wrong(
                f"shared memory size specified with the request for output '{name}' ({place.size} bytes) should be at "
                f"least {len(data)} bytes to hold the results"
            )
        descriptor, start = self._taken(place, token)
        try:
            if os.fstat(descriptor).st_size < start + len(data):  # a write would make it larger
                raise agent_oip.wrong(f"shared memory region '{place.region}' became too small for output '{name}'")
            os.pwrite(descriptor, data, start)
        finally:
            os.close(descriptor)

    def check(self, request: agent_oip.Request, token: str) -> None:
        """Raises OipError, before anything is computed, if an output has no place."""
        for place in request.places.values():
            os.close(self._taken(place, token)[0])

    def _taken(self, place: agent_oip.Place, token: str) -> tuple[int, int]:
        """A descriptor of the caller's own, so that nobody can close it under them, and where the place begins."""
        self._authorize(token)
        with self._changing:
            region = self._regions.get(place.region)
            if region is None:
                raise agent_oip.OipError("NOT_FOUND", f"Unable to find shared memory region: '{place.region[:256]}'")
            if place.offset + place.size > region.size:
                raise agent_oip.wrong(f"Invalid offset + byte size for shared memory region: '{place.region}'")
            return os.dup(region.descriptor), region.offset + place.offset


def _opened(key: str, least_bytes: int) -> int:
    path = f"{_FOLDER}/{key.removeprefix('/')}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise agent_oip.wrong(f"Unable to open shared memory region: '{key}': {error.strerror}") from error
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size >= least_bytes:
        return descriptor
    os.close(descriptor)
    raise agent_oip.wrong(
        f"failed to register shared memory region: '{key}' has {found.st_size} bytes, not {least_bytes}"
    )
