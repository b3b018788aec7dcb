"""The checksums an S3 client may send along with a body, in a header or a trailer `x-amz-checksum-<name>`."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping

from awscrt import checksums

from cloud.api import errors

PREFIX = "x-amz-checksum-"
# Name -> (function of bytes and the value so far, length in bytes).
_CYCLIC: dict[str, tuple[Callable[[bytes, int], int], int]] = {
    "crc32": (zlib.crc32, 4),
    "crc32c": (checksums.crc32c, 4),
    "crc64nvme": (checksums.crc64nvme, 8),
}
_DIGESTS = ("sha1", "sha256")


class Checksum:
    """One running checksum; `name` as in the header."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._value = 0
        self._digest = hashlib.new(name, usedforsecurity=False) if name in _DIGESTS else None

    def update(self, block: bytes) -> None:
        if self._digest is not None:
            self._digest.update(block)
            return
        self._value = _CYCLIC[self.name][0](block, self._value)

    def text(self) -> str:
        """Base64 of the big-endian value."""
        if self._digest is not None:
            return base64.b64encode(self._digest.digest()).decode()
        return base64.b64encode(self._value.to_bytes(_CYCLIC[self.name][1], "big")).decode()

    def check(self, given: Mapping[str, str]) -> None:
        """Raises ApiError 400 if headers or trailers have another value."""
        wanted = given.get(PREFIX + self.name, "")
        if wanted != self.text():
            message = f"the body's {self.name.upper()} is {self.text()}, not {wanted or 'stated'}; send it again"
            raise errors.ApiError(400, "BadDigest", message)


def announced(headers: Mapping[str, str]) -> Checksum | None:
    """The checksum that comes with a request; None if there is none that we know."""
    named = headers.get("x-amz-trailer", "").strip().lower()
    names = [named, *(name for name in headers if name.startswith(PREFIX))]
    for name in names:
        short = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and (short in _CYCLIC or short in _DIGESTS):
            return Checksum(short)
    return None
