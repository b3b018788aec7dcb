"""Temporary AWS credentials: from the nucleus's token exchange, or from IoT's credentials provider by a certificate.

Raises OSError where nobody answers, CredentialsError where the answer is no.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import agent_outgoing
import agent_sigv4

URI_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_VARIABLE = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 the name of a variable
_THING_HEADER = "x-amzn-iot-thingname"

Source = Callable[[], agent_sigv4.Credentials]


class CredentialsError(Exception):
    """There are none; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """A device's certificate at IoT: `url` is https://HOST/role-aliases/ALIAS/credentials, files are PEM.

    `authority` is the file of whom to trust, "" for the system's.
    """

    url: str
    thing: str
    certificate: str
    key: str
    authority: str = ""


def exchanged() -> agent_sigv4.Credentials:
    """Those that the nucleus gives to this component. Raises OSError, CredentialsError."""
    uri = os.environ.get(URI_VARIABLE, "")
    if not uri:
        why = f"{URI_VARIABLE} is not set; depend on aws.greengrass.TokenExchangeService"
        raise CredentialsError(f"cannot get credentials: {why}")
    parts = urllib.parse.urlsplit(uri)
    connection = agent_outgoing.connection(f"{parts.scheme}://{parts.netloc}")  # on this device: never through a proxy
    given = _asked(connection, parts.path or "/", {"authorization": os.environ.get(TOKEN_VARIABLE, "")})
    return _read(given, ("AccessKeyId", "SecretAccessKey", "Token", "Expiration"))


def certified(certificate: Certificate) -> agent_sigv4.Credentials:
    """Those of the role alias, for the thing that the certificate is attached to. Raises OSError, CredentialsError.

    Source: AWS IoT Core, "Authorizing direct calls to AWS services".
    """
    parts = urllib.parse.urlsplit(certificate.url)
    endpoint = f"https://{parts.netloc}"
    try:
        context = ssl.create_default_context(cafile=certificate.authority or None)
        context.load_cert_chain(certificate.certificate, certificate.key)
    except OSError as error:
        raise CredentialsError(f"cannot get credentials: the certificate, its key or the CA: {error}") from error
    connection = agent_outgoing.connection(endpoint, agent_outgoing.proxy(endpoint), context)
    given = _asked(connection, parts.path, {_THING_HEADER: certificate.thing})
    found = given.get("credentials") if isinstance(given, Mapping) else None
    return _read(found, ("accessKeyId", "secretAccessKey", "sessionToken", "expiration"))


def _asked(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> Any:
    try:
        connection.request("GET", path, headers=dict(headers))
        status, text = agent_outgoing.answer(connection)
    except http.client.HTTPException as error:
        raise OSError(f"cannot get credentials: the answer makes no sense: {error!r}") from error
    finally:
        connection.close()
    if status != 200:
        why = text[:200].decode(errors="replace")
        raise CredentialsError(f"cannot get credentials: HTTP {status} {why}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OSError(f"cannot get credentials: the answer cannot be read: {error!r}") from error


def _read(given: Any, names: tuple[str, str, str, str]) -> agent_sigv4.Credentials:
    """`names` of key id, secret, token and the time of the end."""
    try:
        key_id, secret, token, end = (given.get(name) or "" for name in names)
        expires_at = datetime.datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() if end else float("inf")
        if not (key_id and secret and all(isinstance(each, str) for each in (key_id, secret, token))):
            raise ValueError(f"it lacks {names[0]} or {names[1]}")
    except (ValueError, TypeError, AttributeError) as error:
        raise OSError(f"cannot get credentials: the answer cannot be read: {error!r}") from error
    return agent_sigv4.Credentials(key_id, secret, token, expires_at)
