"""Who the operator is and where the service is, as boto3 clients and as one signed request of our own.

Either a service's root folder (`--root`, MARRAM_ROOT: endpoints.json and operator/credentials) or the usual AWS_* variables.
With a root nothing of `~/.aws` is read; nothing is ever written there.
"""

from __future__ import annotations

import configparser
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib import error as url_error
from urllib import request as url_request

import botocore.session
import click
from botocore import auth, awsrequest, config, credentials, exceptions
from msgspec import Struct

from nucleus.cli import exits

Command = TypeVar("Command", bound=Callable[..., Any])

_DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedException",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException",
    "InvalidClientTokenId",
    "ExpiredTokenException",
    "403",
)
_TIMEOUT_S = 30


class Session:
    """Makes clients of one service; `endpoints` is empty when the AWS_* variables say where."""

    def __init__(
        self, botocore_session: botocore.session.Session, root: Path | None, endpoints: dict[str, Any]
    ) -> None:
        self._session = botocore_session
        self.root = root
        self.endpoints = endpoints

    @functools.cached_property
    def region(self) -> str:
        region = self.endpoints.get("region") or self._session.get_config_variable("region")
        if not region:
            raise exits.Failure("cannot choose a region: give --root, or set AWS_REGION")
        return str(region)

    @functools.cached_property
    def account(self) -> str:
        return self.endpoints.get("account") or str(self.client("sts").get_caller_identity()["Account"])

    def client(self, service: str) -> Any:
        """A boto3-shaped client; S3 addresses buckets by path, for ours has no names of its own."""
        options = config.Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": "path"} if self.endpoints else None,
        )
        return self._session.create_client(
            service, region_name=self.region, endpoint_url=self.endpoints.get("api"), config=options
        )

    def get(self, path: str) -> dict[str, Any]:
        """One of our own routes, `/marram/v1/…`, signed as a Greengrass call."""
        endpoint = self.endpoints.get("api") or self.client("greengrassv2").meta.endpoint_url
        request = awsrequest.AWSRequest("GET", endpoint + path, headers={"accept": "application/json"})
        keys = self._session.get_credentials()
        if keys is None:
            raise exceptions.NoCredentialsError
        auth.SigV4Auth(keys, "greengrass", self.region).add_auth(request)
        signed = url_request.Request(endpoint + path, headers=dict(request.headers.items()))  # noqa: S310 endpoint is ours
        try:
            with url_request.urlopen(signed, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except url_error.HTTPError as error:
            raise _from_http(path, error) from None
        except OSError as error:
            raise exits.Failure(f"cannot reach the service at {endpoint}: {error}; is it running?") from None


class _Keys(Struct, frozen=True):
    id: str
    secret: str


def option(command: Command) -> Command:
    """The option `--root` of operator verbs, and their errors in words instead of stacks."""

    @functools.wraps(command)
    def told(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (exceptions.ClientError, exceptions.BotoCoreError) as error:
            raise _failure(error) from error

    return click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="MARRAM_ROOT",
        help="The service's root folder (or MARRAM_ROOT); without one, the usual AWS_* variables.",
    )(told)  # type: ignore[return-value]  # functools.wraps keeps the signature


def open_session(root: Path | None) -> Session:
    """The session for `root`, or for the AWS_* variables if it is None."""
    made = botocore.session.Session()
    if root is None:
        return Session(made, None, {})
    root = root.absolute()
    try:
        endpoints = json.loads((root / "endpoints.json").read_bytes())
    except FileNotFoundError:
        cure = (
            f"marram cloud run --root {root}" if (root / "cloud.json").exists() else f"marram cloud init --root {root}"
        )
        raise exits.Failure(f"cannot reach the service of {root}: it is not running ({cure})") from None
    except ValueError:
        raise exits.Failure(f"cannot reach the service of {root}: endpoints.json is damaged; restart it") from None
    keys = _keys(root / "operator" / "credentials")
    # Instance variables win over the environment and over files: AWS_PROFILE must not lead elsewhere.
    made.set_config_variable("profile", "default")
    made.set_config_variable("config_file", str(root / "operator" / "config"))
    made.set_config_variable("credentials_file", str(root / "operator" / "credentials"))
    made.set_config_variable("region", endpoints["region"])
    if endpoints["api"].startswith("https:"):
        made.set_config_variable("ca_bundle", endpoints["ca"])
    made._credentials = credentials.Credentials(keys.id, keys.secret, method="marram-root")
    return Session(made, root, endpoints)


def _keys(path: Path) -> _Keys:
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as stream:
            parser.read_file(stream)
        return _Keys(parser["default"]["aws_access_key_id"], parser["default"]["aws_secret_access_key"])
    except PermissionError:
        raise exits.Failure(f"cannot read {path}: it belongs to another user", exits.NOT_AUTHORISED) from None
    except (OSError, configparser.Error, KeyError) as error:
        raise exits.Failure(f"cannot read the operator's key from {path}: {error}") from None


def _failure(error: Exception) -> exits.Failure:
    if isinstance(error, exceptions.ClientError):
        told = error.response.get("Error", {})
        code = exits.NOT_AUTHORISED if told.get("Code") in _DENIED else exits.ERROR
        return exits.Failure(f"{told.get('Message') or error} [{told.get('Code')}]", code)
    if isinstance(error, exceptions.NoCredentialsError):
        return exits.Failure("cannot sign the call: give --root, or set the AWS_* variables", exits.NOT_AUTHORISED)
    if isinstance(error, exceptions.EndpointConnectionError):
        return exits.Failure(f"{error}; is the service running?")
    return exits.Failure(str(error))


def _from_http(path: str, error: url_error.HTTPError) -> exits.Failure:
    try:
        message = json.load(error).get("message", "")
    except ValueError:
        message = ""
    code = exits.NOT_AUTHORISED if error.code in (401, 403) else exits.ERROR
    return exits.Failure(message or f"cannot get {path}: the service answered {error.code}", code)
