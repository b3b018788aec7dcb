"""Puts objects into one S3 bucket with the credentials of agent_credentials.py.

One connection (agent_outgoing.py), made when it is needed. Not here: multipart uploads (a unit of captures is a sixteenth of
the store at most, S3 takes 5 GB at once).
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import agent_credentials
import agent_outgoing
import agent_settings
import agent_sigv4

_EARLY_S = 60.0  # credentials are renewed before they end
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class S3Error(Exception):
    """The other side refused; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Destination:
    """`endpoint` is a URL without a path; `below` what comes before keys in the path of a request ("" or "/<bucket>")."""

    bucket: str
    prefix: str
    endpoint: str
    below: str
    region: str


def read(given: Mapping[str, Any]) -> Destination | None:
    """None without a bucket. Raises agent_settings.SettingsError."""
    bucket, prefix, endpoint, region = (given.get(key) or "" for key in ("bucket", "prefix", "endpoint", "region"))
    if not all(isinstance(value, str) for value in (bucket, prefix, endpoint, region)):
        raise agent_settings.SettingsError("captureUpload: bucket, prefix, endpoint and region must be texts")
    if not bucket:
        return None
    if not _BUCKET.fullmatch(bucket):
        raise agent_settings.SettingsError(f"captureUpload: {bucket!r} is no name of a bucket")
    region = region or os.environ.get("AWS_REGION", "") or "us-east-1"
    prefix = prefix.strip("/")
    if not endpoint:
        return Destination(bucket, prefix, f"https://{bucket}.s3.{region}.amazonaws.com", "", region)
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise agent_settings.SettingsError(
            f"captureUpload: endpoint {endpoint!r} must be http(s)://HOST or http(s)://HOST:PORT"
        )
    return Destination(bucket, prefix, f"{parts.scheme}://{parts.netloc}", f"/{bucket}", region)


class Bucket:
    """For one thread; `close` may come from another."""

    def __init__(
        self, destination: Destination, clock: Callable[[], float], credentials: agent_credentials.Source
    ) -> None:
        self._destination = destination
        self._clock = clock
        self._fetch = credentials
        self._credentials: agent_sigv4.Credentials | None = None
        self._connection: http.client.HTTPConnection | None = None

    def connect(self) -> None:
        """Makes sure of credentials and a connection, before anything is sent.

        Raises OSError, agent_credentials.CredentialsError.
        """
        if self._credentials is None or self._credentials.expires_at - _EARLY_S <= self._clock():
            self._credentials = self._fetch()
        if self._connection is None or self._connection.sock is None:
            self._connection = agent_outgoing.connection(
                self._destination.endpoint, agent_outgoing.proxy(self._destination.endpoint)
            )
            self._connection.connect()

    def put(self, key: str, body: IO[bytes], size: int, digest: str) -> None:
        """Stores an object after `connect`; `digest` is its SHA-256 in hex. Raises OSError, S3Error."""
        assert self._connection is not None
        assert self._credentials is not None
        path = agent_sigv4.encoded(f"{self._destination.below}/{key}")
        host = urllib.parse.urlsplit(self._destination.endpoint).netloc
        headers = agent_sigv4.signed(
            "PUT", host, path, digest, self._credentials, self._destination.region, self._clock()
        )
        try:
            self._connection.request("PUT", path, body, {**headers, "content-length": str(size)})
            status, text = agent_outgoing.answer(self._connection)
        except http.client.HTTPException as error:
            self.close()
            raise OSError(f"cannot put {key}: the answer makes no sense: {error!r}") from error
        except OSError:
            self.close()
            raise
        if status != 200:
            self.close()
            if status in (401, 403):
                self._credentials = None  # they may have been revoked
            raise S3Error(
                status, f"cannot put {key} into {self._destination.bucket}: HTTP {status} {_code(text)}".strip()
            )

    def close(self) -> None:
        """Closes the connection; the next `connect` makes another."""
        if self._connection is not None:
            self._connection.close()


def _code(text: bytes) -> str:
    """The code in S3's XML of an error."""
    found = re.search(rb"<Code>([A-Za-z]{1,64})</Code>", text)
    return found[1].decode() if found else ""
