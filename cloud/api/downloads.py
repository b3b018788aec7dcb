"""Presigned downloads of artifacts on the device server: `/a/<id>/<file>?e=<expires>&s=<signature>`.

Short on purpose: nucleus lite reads the whole answer into 2,000 bytes (spec/cloud.md 2.3). The signature covers path and
expiry, so a URL needs no other credential and is good for one artifact.
"""

from __future__ import annotations

import base64
import hmac
from urllib import parse

from cloud.api import calls, errors, ranges, services

PREFIX = "/a"
LIFETIME_S = 3600  # a slow link finishes what it began; a new start asks for a new URL


def presign(held: services.Services, artifact_id: str, file: str, now_ms: int) -> str:
    """A URL that anybody may GET for LIFETIME_S from now."""
    path = f"{PREFIX}/{artifact_id}/{parse.quote(file, safe='')}"
    expires = now_ms // 1000 + LIFETIME_S
    return f"{held.endpoints.device}{path}?e={expires}&s={_sign(held, artifact_id, file, str(expires))}"


def get(call: calls.Call) -> calls.Answer:
    """The bytes of an artifact, whole or a range. Raises ApiError 403 for a URL that is not ours or too old."""
    artifact_id, file, expires = call.path["artifactId"], call.path["file"], call.first("e")
    expected = _sign(call.services, artifact_id, file, expires)
    if not hmac.compare_digest(expected.encode(), call.first("s").encode()):
        raise errors.denied("the signature of this download does not match; ask for a new URL")
    if int(expires) * 1000 < call.now_ms:
        raise errors.denied("this download has expired; ask for a new URL")
    sha256 = base64.urlsafe_b64decode(artifact_id + "=" * (-len(artifact_id) % 4)).hex()
    try:
        size = call.services.objects.path(sha256).stat().st_size
    except FileNotFoundError:
        raise errors.not_found(f"cannot find the bytes of artifact {file}", artifact_id, "artifact") from None
    headers = {"content-type": "application/octet-stream", "etag": f'"{sha256}"'}
    return ranges.answer(call, call.services.objects, sha256, size, headers)


def _sign(held: services.Services, artifact_id: str, file: str, expires: str) -> str:
    return held.pki.sign(f"{artifact_id}/{file}\n{expires}")
