"""Signatures: what is taken and what is refused, over the wire and for the pure part."""

from __future__ import annotations

import contextlib
import datetime
import urllib.error
import urllib.request
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from cloud.api import errors, identity
from tests.cloud.api import service as running_service

NOW = datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def _code(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("name", "call", "code"),
    [
        ("greengrassv2", "list_components", "InvalidSignatureException"),
        ("iot", "list_things", "InvalidSignatureException"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
        ("s3", "list_buckets", "SignatureDoesNotMatch"),
    ],
)
def test_call_when_secret_is_wrong_then_403(service: running_service.Service, name: str, call: str, code: str) -> None:
    client = service.client(name, aws_secret_access_key="wrong")

    assert _code(getattr(client, call)) == (403, code)


def test_call_when_key_is_unknown_then_403(service: running_service.Service) -> None:
    client = service.client("greengrassv2", aws_access_key_id="AKIANOBODY")

    assert _code(client.list_components) == (403, "UnrecognizedClientException")


def test_call_when_region_is_another_then_the_right_one_is_named(service: running_service.Service) -> None:
    client = service.client("greengrassv2", region_name="eu-west-1")

    with pytest.raises(botocore.exceptions.ClientError, match="AWS_REGION=us-east-1"):
        client.list_components()


@pytest.mark.parametrize("skew_ms", [-16 * 60 * 1000, 16 * 60 * 1000])
def test_call_when_clock_is_off_then_403(service: running_service.Service, skew_ms: int) -> None:
    service.tick_ms = skew_ms

    assert _code(service.client("greengrassv2").list_components)[0] == 403


def test_call_when_clock_is_a_little_off_then_taken(service: running_service.Service) -> None:
    service.tick_ms = 10 * 60 * 1000

    assert service.client("greengrassv2").list_components()["components"] == []


@pytest.mark.parametrize(
    "path", ["/greengrass/v2/components", "/things", "/bucket/key", "/", "/%00", "/nothing/at/all"]
)
def test_call_when_unsigned_then_403(service: running_service.Service, path: str) -> None:
    with contextlib.closing(service.connect()) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()

    assert answer.status == 403


@pytest.mark.parametrize("path", ["/marram/v1/ca", "/marram/v1/endpoints"])
def test_call_when_route_is_open_then_answered(service: running_service.Service, path: str) -> None:
    with contextlib.closing(service.connect()) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()

    assert answer.status == 200
    assert body


def test_presigned_when_fresh_then_the_object_and_when_changed_then_403(service: running_service.Service) -> None:
    client = service.client("s3", config={"signature_version": "s3v4"})
    client.create_bucket(Bucket="artifacts")
    client.put_object(Bucket="artifacts", Key="a b/ü.txt", Body=b"hello")
    url = client.generate_presigned_url("get_object", {"Bucket": "artifacts", "Key": "a b/ü.txt"}, ExpiresIn=60)

    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError) as changed:
        urllib.request.urlopen(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
    service.tick_ms = 61_000
    with pytest.raises(urllib.error.HTTPError) as expired:
        urllib.request.urlopen(url)

    assert (changed.value.code, expired.value.code) == (403, 403)
    changed.value.close()
    expired.value.close()


def _signed(method: str = "POST", url: str = "http://h:80/x?b=2&a=1", body: bytes = b"{}") -> identity.Request:
    """A request signed by botocore at NOW for scope `greengrass`."""
    request = botocore.awsrequest.AWSRequest(method, url, data=body, headers={"host": "h:80", "x-amz-thing": "v"})
    request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials("AKIA1", "secret"), "greengrass", "us-east-1")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))
    path, _, query = url.removeprefix("http://h:80").partition("?")
    headers = tuple((name.lower(), value) for name, value in request.headers.items())
    return identity.Request(method, path, query, headers)


def test_verify_when_nothing_changed_then_passes() -> None:
    request = _signed()

    claim = identity.read(request)

    identity.verify(claim, request, "secret", b"{}", now_ms=NOW_MS)
    assert (claim.key_id, claim.service) == ("AKIA1", "greengrass")


@pytest.mark.parametrize(
    ("change", "body", "secret", "now_ms"),
    [
        ({"method": "PUT"}, b"{}", "secret", NOW_MS),
        ({"raw_path": "/y"}, b"{}", "secret", NOW_MS),
        ({"raw_query": "a=1&b=3"}, b"{}", "secret", NOW_MS),
        ({}, b"{ }", "secret", NOW_MS),
        ({}, b"{}", "Secret", NOW_MS),
        ({}, b"{}", "secret", NOW_MS + 16 * 60_000),
        ({}, b"{}", "secret", NOW_MS - 16 * 60_000),
    ],
)
def test_verify_when_anything_changed_then_403(change: dict[str, str], body: bytes, secret: str, now_ms: int) -> None:
    request = _signed()
    claim = identity.read(request)
    fields = {name: getattr(request, name) for name in ("method", "raw_path", "raw_query", "headers")}

    with pytest.raises(errors.ApiError) as caught:
        identity.verify(claim, identity.Request(**(fields | change)), secret, body, now_ms=now_ms)

    assert caught.value.status == 403


def test_verify_when_an_amz_header_is_added_then_403() -> None:
    request = _signed()
    added = identity.Request("POST", "/x", "b=2&a=1", (*request.headers, ("x-amzn-principal", "arn")))

    with pytest.raises(errors.ApiError, match="x-amzn-principal"):
        identity.verify(identity.read(request), added, "secret", b"{}", now_ms=NOW_MS)


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic abc",
        "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=",
        "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential=a/20260131/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=" + "0" * 63,
    ],
)
def test_read_when_authorization_is_malformed_then_403(authorization: str) -> None:
    request = identity.Request("GET", "/", "", (("host", "h"), ("authorization", authorization)))

    with pytest.raises(errors.ApiError) as caught:
        identity.read(request)

    assert caught.value.status == 403


def test_call_when_body_is_larger_than_the_limit_then_413(service: running_service.Service) -> None:
    client = service.client("greengrassv2", config={"parameter_validation": False})

    with pytest.raises((botocore.exceptions.ClientError, botocore.exceptions.ConnectionClosedError)):
        client.create_component_version(inlineRecipe=b"x" * 13 * 1024 * 1024)

    assert client.list_components()["components"] == []
