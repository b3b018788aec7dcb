"""GetSecretValue of AWS Secrets Manager, or of whatever speaks its JSON API, signed by awscrt.

Source: the service's API reference (AWS JSON 1.1; target `secretsmanager.GetSecretValue`). Answers are bounded and checked:
what is not the secret that was asked for is refused.
"""

from __future__ import annotations

import asyncio
import base64
import io as streams
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from nucleus.core import errors, secrets
from nucleus.uplink import crt, dataplane, http

TIMEOUT_S = 10.0
LIMIT_BYTES = 8 * secrets.LIMIT_BYTES  # of an answer: JSON may write a character in six bytes
_AGAIN = frozenset({"ThrottlingException", "InternalServiceError", "RequestLimitExceeded", "ServiceUnavailable"})
_EXPIRED = frozenset({"ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"})


class Credentials(Struct, frozen=True):
    access_key: str
    secret_key: str
    token: str


class Answer(Struct, frozen=True):
    """A version of a secret and its value."""

    version: secrets.Version
    value: bytes


class SecretsManager:
    """`credentials` gives what signs (raises NucleusError); `endpoint(secret)` and `region(secret)` say where to ask."""

    def __init__(
        self,
        client: http.Http,
        credentials: Callable[[], Awaitable[Credentials]],
        endpoint: Callable[[str], str],
        region: Callable[[str], str],
    ) -> None:
        self._http = client
        self._credentials = credentials
        self._endpoint = endpoint
        self._region = region

    async def get(self, ask: secrets.Ask) -> Answer:
        """Raises dataplane.Unavailable (try again), or NucleusError RESOURCE_NOT_FOUND, ACCESS_DENIED, BAD_REQUEST."""
        failing = f"cannot fetch secret {ask.secret} ({ask.label})"
        url = self._endpoint(ask.secret) + "/"
        body = json.dumps({"SecretId": ask.secret, "VersionStage": ask.label}).encode()
        signed = await self._signed(url, body, self._region(ask.secret))
        try:
            answer = await self._http.request("POST", url, body=body, headers=signed, timeout_s=TIMEOUT_S)
        except errors.NucleusError as error:
            raise dataplane.Unavailable(error.code, f"{failing}: {error.detail}") from error
        found = _object(answer, failing)
        if answer.status != 200:
            raise _refusal(answer.status, found, failing)
        return _answer(ask, found, failing)

    async def _signed(self, url: str, body: bytes, region: str) -> dict[str, str]:
        """The request's headers with its signature."""
        given = await self._credentials()
        parts = urlsplit(url)
        request = crt.http.HttpRequest("POST", parts.path)
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "secretsmanager.GetSecretValue",
        }
        for name, value in headers.items():
            request.headers.add(name, value)
        request.body_stream = streams.BytesIO(body)
        provider = crt.auth.AwsCredentialsProvider.new_static(given.access_key, given.secret_key, given.token or None)
        how = crt.auth.AwsSigningConfig(credentials_provider=provider, region=region, service="secretsmanager")
        try:
            await asyncio.wrap_future(crt.auth.aws_sign_request(request, how))
        except Exception as error:  # AwsCrtError
            raise errors.NucleusError("BAD_REQUEST", f"cannot sign a request to {url}: {error}") from error
        return {name: value for name, value in request.headers if name.lower() not in ("host", "content-length")}


def _object(answer: http.Response, failing: str) -> dict[str, Any]:
    if len(answer.body) > LIMIT_BYTES:
        raise dataplane.Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is larger than a secret may be")
    try:
        found = json.loads(answer.body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    if answer.status == 200:
        raise dataplane.Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is no JSON object")
    return {}


def _refusal(status: int, found: dict[str, Any], failing: str) -> errors.NucleusError:
    name = str(found.get("__type") or found.get("code") or "").rpartition("#")[2]
    said = str(found.get("message") or found.get("Message") or "")[:300]
    why = f"{failing}: the cloud answered {status} {name}: {said}".rstrip(": ")
    if status == 429 or status >= 500 or name in _AGAIN or name in _EXPIRED:
        return dataplane.Unavailable("SERVER_ERROR", why)
    if name == "ResourceNotFoundException":
        return errors.NucleusError("RESOURCE_NOT_FOUND", why)
    denied = name == "AccessDeniedException" or status == 403
    return errors.NucleusError("ACCESS_DENIED" if denied else "BAD_REQUEST", why)


def _answer(ask: secrets.Ask, found: dict[str, Any], failing: str) -> Answer:
    """Checks that it is what was asked for."""
    stages = found.get("VersionStages")
    texts = (
        found.get("ARN"),
        found.get("Name"),
        found.get("VersionId"),
        *(stages if isinstance(stages, list) else [None]),
    )
    if not all(isinstance(one, str) and 0 < len(one) <= 2048 for one in texts):
        raise dataplane.Unavailable("CLOUD_API_ERROR", f"{failing}: the answer lacks ARN, name, version or labels")
    arn, name, version, *labels = (str(one) for one in texts)
    is_binary = found.get("SecretString") is None
    known = secrets.Version(arn, name, version, tuple(labels), is_binary)
    if not secrets.covers(secrets.Configured(ask.secret, ()), known) or ask.label not in labels:
        raise dataplane.Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is another secret's or version's")
    try:
        text = found["SecretBinary" if is_binary else "SecretString"]
        value = base64.b64decode(text, validate=True) if is_binary else text.encode()
    except (KeyError, TypeError, AttributeError, ValueError):
        raise dataplane.Unavailable("CLOUD_API_ERROR", f"{failing}: the answer holds no value") from None
    if len(value) > secrets.LIMIT_BYTES:
        raise errors.NucleusError("BAD_REQUEST", f"{failing}: it is larger than {secrets.LIMIT_BYTES} bytes")
    return Answer(known, value)
