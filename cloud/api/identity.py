"""Who calls the operator API: Signature Version 4, verified with botocore's own signer.

A claim is read from the headers or from a presigned query; the caller looks up its key and asks `verify`.
What is not signed is refused: the host, and every `x-amz…` header that was sent.
"""

from __future__ import annotations

import datetime
import hmac
import re
from collections.abc import Mapping, Sequence
from urllib import parse

from botocore import auth, awsrequest, credentials
from msgspec import Struct

from cloud.api import errors

SKEW_MS = 15 * 60 * 1000  # what S3 allows between the clocks of client and service
_LONGEST_PRESIGNED_S = 7 * 24 * 3600
_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(rf"{_ALGORITHM} +Credential=([^, ]+), *SignedHeaders=([^, ]+), *Signature=([0-9a-f]{{64}})")
_UNSIGNABLE = frozenset({"x-amzn-trace-id"})  # added by proxies; no signer takes it


class Request(Struct, frozen=True):
    """A request as it came over the wire: path and query still encoded, header names in lower case."""

    method: str
    raw_path: str
    raw_query: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        """The first header of this (lower-case) name, "" if there is none."""
        return next((value for key, value in self.headers if key == name), "")


class Claim(Struct, frozen=True):
    """What a request claims about itself: which key signed what, and when (`timestamp` as `20260131T235959Z`)."""

    key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    expires_s: int = 0  # of a presigned URL; 0 = signed in the headers

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def read(request: Request) -> Claim:
    """The claim of a request. Raises ApiError 403 if it is unsigned or the claim cannot be read."""
    authorization = request.header("authorization")
    if authorization:
        found = _AUTHORIZATION.fullmatch(authorization.strip())
        if found is None:
            raise _incomplete("the Authorization header is not of the form of Signature Version 4")
        timestamp = request.header("x-amz-date") or _from_http_date(request.header("date"))
        return _claim(found[1], found[2], found[3], timestamp, 0)
    query = dict(parse.parse_qsl(request.raw_query, keep_blank_values=True))
    if query.get("X-Amz-Algorithm") == _ALGORITHM:
        names = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date")
        credential, signed, signature, timestamp = (query.get(name, "") for name in names)
        return _claim(credential, signed, signature, timestamp, _expires(query.get("X-Amz-Expires", "")))
    message = (
        "the request is not signed; every operator call needs Signature Version 4 with an access key of this service"
    )
    raise errors.ApiError(403, "MissingAuthenticationTokenException", message)


def verify(claim: Claim, request: Request, secret: str, body: bytes, *, now_ms: int) -> None:
    """Raises ApiError 403 unless the key's holder signed exactly this request, recently.

    With `x-amz-content-sha256` it is that value which is verified; that the body matches it is the caller's business.
    """
    _check_time(claim, now_ms)
    _check_coverage(claim, request)
    if not hmac.compare_digest(_signature(claim, request, secret, body), claim.signature):
        message = (
            "the request signature we calculated does not match the one you sent; "
            "check the secret access key, and that nothing between you and the service changes the request"
        )
        raise errors.ApiError(403, "InvalidSignatureException", message)


def session_token(request: Request) -> str:
    """The token that comes with a temporary key, signed like the rest of the request; "" if there is none."""
    query = dict(parse.parse_qsl(request.raw_query, keep_blank_values=True))
    return request.header("x-amz-security-token") or query.get("X-Amz-Security-Token", "")


def signing_key(claim: Claim, secret: str) -> bytes:
    """The key that also signs the chunks of a streamed upload."""
    key = f"AWS4{secret}".encode()
    for part in claim.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _signature(claim: Claim, request: Request, secret: str, body: bytes) -> str:
    query = request.raw_query
    if claim.expires_s:
        query = "&".join(pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature="))
    signed = awsrequest.AWSRequest(
        request.method, f"http://{request.header('host')}{request.raw_path}?{query}", data=body
    )
    for name, value in request.headers:
        if name in claim.signed_headers:
            signed.headers.add_header(name, value)
    signed.context["timestamp"] = claim.timestamp
    key = credentials.Credentials(claim.key_id, secret)
    signer: auth.SigV4Auth
    if claim.expires_s:
        signer = auth.S3SigV4QueryAuth(key, claim.service, claim.region, claim.expires_s)
    elif claim.service == "s3":
        signer = auth.S3SigV4Auth(key, claim.service, claim.region)
    else:
        signer = auth.SigV4Auth(key, claim.service, claim.region)
    text = signer.string_to_sign(signed, signer.canonical_request(signed))
    return str(signer.signature(text, signed))


def _check_time(claim: Claim, now_ms: int) -> None:
    try:
        moment = datetime.datetime.strptime(claim.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise _incomplete(f"cannot read its time {claim.timestamp!r}") from None
    if not claim.timestamp.startswith(claim.date):
        raise _incomplete("the credential's date is not the request's")
    age_ms = now_ms - int(moment.timestamp() * 1000)
    if -SKEW_MS <= age_ms <= (claim.expires_s * 1000 or SKEW_MS):
        return
    message = f"the request was signed at {claim.timestamp}, which is too far from the service's time; check the clock"
    if claim.expires_s:
        message = f"the presigned URL of {claim.timestamp} has expired or is not valid yet"
    raise errors.ApiError(403, "RequestExpiredException", message)


def _check_coverage(claim: Claim, request: Request) -> None:
    sent = {name for name, _ in request.headers}
    needed = {"host"} | {name for name in sent if name.startswith("x-amz") and name not in _UNSIGNABLE}
    missing = sorted(needed - set(claim.signed_headers))
    if missing:
        raise _incomplete(f"these headers are not signed: {', '.join(missing)}")


def _claim(credential: str, signed: str, signature: str, timestamp: str, expires_s: int) -> Claim:
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise _incomplete("the credential is not KEY/DATE/REGION/SERVICE/aws4_request")
    headers: Sequence[str] = signed.lower().split(";")
    return Claim(parts[0], parts[1], parts[2], parts[3], tuple(headers), signature, timestamp, expires_s)


def _expires(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _LONGEST_PRESIGNED_S:
        raise _incomplete("X-Amz-Expires must be 1 to 604800 seconds")
    return int(text)


def _from_http_date(text: str) -> str:
    try:
        moment = datetime.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise _incomplete("it has neither x-amz-date nor a readable date") from None
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _incomplete(why: str) -> errors.ApiError:
    return errors.ApiError(403, "IncompleteSignatureException", f"cannot verify the signature: {why}")


def headers_of(raw: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Header pairs of a server as text, names in lower case."""
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw)


def query_of(raw_query: str) -> Mapping[str, tuple[str, ...]]:
    """All values of each name of an encoded query."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in parse.parse_qsl(raw_query, keep_blank_values=True):
        found[name] = (*found.get(name, ()), value)
    return found
