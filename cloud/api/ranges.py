"""Answers with the bytes of a stored object, whole or as one range (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cloud.api import calls, errors
from cloud.objects import files

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def answer(
    call: calls.Call, objects: files.Objects, sha256: str, size: int, headers: Mapping[str, str]
) -> calls.Answer:
    """200 or 206; a Range header we do not know is ignored, as the RFC wants. Raises ApiError 416."""
    span = _span(call.headers.get("range", ""), size)
    made = {**headers, "accept-ranges": "bytes"}
    if span is None:
        return calls.Answer(200, made | {"content-length": str(size)}, objects.read(sha256, 0, size))
    first, last = span
    if first >= size or last < first:
        message = f"cannot give bytes {first}- of {size}"
        raise errors.ApiError(416, "InvalidRange", message)
    made |= {"content-length": str(last - first + 1), "content-range": f"bytes {first}-{last}/{size}"}
    return calls.Answer(206, made, objects.read(sha256, first, last - first + 1))


def _span(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte wanted; None for the whole."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last n bytes
        return max(0, size - int(found[2])), size - 1
    return int(found[1]), min(int(found[2]), size - 1) if found[2] else size - 1
