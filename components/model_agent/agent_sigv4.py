"""Signature Version 4 of one S3 request with its body's digest (pure; standard library).

Source: AWS General Reference, "Create a signed AWS API request"; for S3 the path is encoded once, and the digest is signed.
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """Of an AWS account; `token` is empty for a long-lived key, `expires_at` epoch seconds."""

    key_id: str
    secret: str
    token: str = ""
    expires_at: float = float("inf")


def encoded(path: str) -> str:
    """A path as it is sent and signed: everything but unreserved characters and slashes is percent-encoded."""
    return urllib.parse.quote(path, safe="/-_.~")


def signed(
    method: str, host: str, path: str, digest: str, credentials: Credentials, region: str, at: float
) -> Mapping[str, str]:
    """The headers that such a request needs beside Content-Length: `path` encoded, `digest` the body's SHA-256 in hex."""
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": moment}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in (moment[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = (
        f"{_ALGORITHM} Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return {**headers, "authorization": authorization}
