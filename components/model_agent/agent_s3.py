"""Puts objects into one S3 bucket with the credentials that the nucleus's token exchange gives to this component.

Standard library only: http.client, Signature Version 4 of agent_sigv4.py. One connection, made when it is needed; through
the proxy of the environment (https_proxy, no_proxy, as the nucleus sets them) by CONNECT, never for credentials. Not here:
multipart uploads (a unit of captures is a sixteenth of the store at most, S3 takes 5 GB at once).
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import os
import re
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import agent_settings
import agent_sigv4

URI_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_VARIABLE = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 the name of a variable
ANSWER_S = 30.0
_ANSWER_LIMIT_BYTES = 64 * 1024
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

    def __init__(self, destination: Destination, clock: Callable[[], float]) -> None:
        self._destination = destination
        self._clock = clock
        self._credentials: agent_sigv4.Credentials | None = None
        self._connection: http.client.HTTPConnection | None = None

    def connect(self) -> None:
        """Makes sure of credentials and a connection, before anything is sent. Raises OSError, S3Error."""
        if self._credentials is None or self._credentials.expires_at - _EARLY_S <= self._clock():
            self._credentials = _fetch()
        if self._connection is None or self._connection.sock is None:
            self._connection = _connection(self._destination.endpoint, _proxy(self._destination.endpoint))
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
            status, text = _answer(self._connection)
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


def _fetch() -> agent_sigv4.Credentials:
    uri = os.environ.get(URI_VARIABLE, "")
    if not uri:
        raise S3Error(
            0, f"cannot get credentials: {URI_VARIABLE} is not set; depend on aws.greengrass.TokenExchangeService"
        )
    parts = urllib.parse.urlsplit(uri)
    connection = _connection(f"{parts.scheme}://{parts.netloc}")
    try:
        connection.request("GET", parts.path or "/", headers={"authorization": os.environ.get(TOKEN_VARIABLE, "")})
        status, text = _answer(connection)
    except http.client.HTTPException as error:
        raise OSError(f"cannot get credentials: the answer makes no sense: {error!r}") from error
    finally:
        connection.close()
    if status != 200:
        raise S3Error(status, f"cannot get credentials: HTTP {status} {text[:200].decode(errors='replace')}")
    try:
        given = json.loads(text)
        expires_at = float("inf")
        if given.get("Expiration"):
            expires_at = datetime.datetime.fromisoformat(given["Expiration"].replace("Z", "+00:00")).timestamp()
        return agent_sigv4.Credentials(
            given["AccessKeyId"], given["SecretAccessKey"], given.get("Token") or "", expires_at
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"cannot get credentials: the answer cannot be read: {error!r}") from error


def _connection(endpoint: str, proxy: str = "") -> http.client.HTTPConnection:
    parts, way = urllib.parse.urlsplit(endpoint), urllib.parse.urlsplit(proxy or endpoint)
    made: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        made = http.client.HTTPSConnection(way.hostname or "", way.port, timeout=ANSWER_S, context=context)
    else:
        made = http.client.HTTPConnection(way.hostname or "", way.port, timeout=ANSWER_S)
    if proxy:
        headers = {}
        if way.username is not None:
            user = f"{urllib.parse.unquote(way.username)}:{urllib.parse.unquote(way.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        made.set_tunnel(parts.hostname or "", parts.port, headers)
    return made


def _proxy(endpoint: str) -> str:
    """The URL of the proxy that the environment names for this endpoint, "" for none."""
    parts = urllib.parse.urlsplit(endpoint)
    found = urllib.request.getproxies()
    proxy = found.get(parts.scheme) or found.get("all", "")
    if not proxy or urllib.request.proxy_bypass(parts.netloc, found):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    text = response.read(_ANSWER_LIMIT_BYTES)
    if not response.isclosed():
        connection.close()  # more than we want to read
    return response.status, text


def _code(text: bytes) -> str:
    """The code in S3's XML of an error."""
    found = re.search(rb"<Code>([A-Za-z]{1,64})</Code>", text)
    return found[1].decode() if found else ""
