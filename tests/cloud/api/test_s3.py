"""The S3 face: unmodified boto3, and bodies as other clients stream them."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
import zlib
from pathlib import Path
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from cloud.api import chunked, identity
from tests.cloud.api import service as running_service


@pytest.fixture
def s3(service: running_service.Service) -> Any:
    client = service.client("s3")
    client.create_bucket(Bucket="artifacts")
    return client


def _code(call: Any, **arguments: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_object_when_put_then_got_whole_in_parts_and_described(s3: Any) -> None:
    data = os.urandom(600_000)

    put = s3.put_object(Bucket="artifacts", Key="a/b c/ü+.bin", Body=data, ContentType="text/x")
    got = s3.get_object(Bucket="artifacts", Key="a/b c/ü+.bin")
    part = s3.get_object(Bucket="artifacts", Key="a/b c/ü+.bin", Range="bytes=599990-")
    tail = s3.get_object(Bucket="artifacts", Key="a/b c/ü+.bin", Range="bytes=-5")
    head = s3.head_object(Bucket="artifacts", Key="a/b c/ü+.bin")

    assert got["Body"].read() == data
    assert (part["Body"].read(), part["ContentRange"]) == (data[599990:], "bytes 599990-599999/600000")
    assert tail["Body"].read() == data[-5:]
    assert (head["ContentLength"], head["ContentType"], head["ETag"]) == (600_000, "text/x", put["ETag"])


def test_object_when_range_is_behind_the_end_then_416(s3: Any) -> None:
    s3.put_object(Bucket="artifacts", Key="k", Body=b"abc")

    assert _code(s3.get_object, Bucket="artifacts", Key="k", Range="bytes=3-") == "InvalidRange"


def test_object_when_empty_then_kept(s3: Any) -> None:
    s3.put_object(Bucket="artifacts", Key="empty", Body=b"")

    assert s3.get_object(Bucket="artifacts", Key="empty")["Body"].read() == b""


def test_object_when_missing_then_named_errors(s3: Any) -> None:
    assert _code(s3.get_object, Bucket="artifacts", Key="no") == "NoSuchKey"
    assert _code(s3.head_object, Bucket="artifacts", Key="no") == "404"
    assert _code(s3.put_object, Bucket="nobody", Key="no", Body=b"x" * 200_000) == "NoSuchBucket"
    assert _code(s3.get_bucket_location, Bucket="nobody") == "NoSuchBucket"


def test_bucket_when_asked_then_location_of_us_east_1_is_nothing(s3: Any) -> None:
    assert s3.get_bucket_location(Bucket="artifacts")["LocationConstraint"] is None
    assert s3.head_bucket(Bucket="artifacts")["BucketRegion"] == "us-east-1"
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["artifacts"]


def test_bucket_when_name_or_region_is_wrong_then_refused(s3: Any) -> None:
    elsewhere = {"LocationConstraint": "eu-west-1"}

    assert _code(s3.create_bucket, Bucket="UPPER") == "InvalidBucketName"
    code = _code(s3.create_bucket, Bucket="other", CreateBucketConfiguration=elsewhere)
    assert code == "IllegalLocationConstraintException"


def test_list_when_prefix_and_delimiter_then_folders(s3: Any) -> None:
    for key in ("a/1", "a/2", "b/1", "c", "d&<e"):
        s3.put_object(Bucket="artifacts", Key=key, Body=b"x")

    found = s3.list_objects_v2(Bucket="artifacts", Delimiter="/")
    below = s3.list_objects_v2(Bucket="artifacts", Prefix="a/")
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="artifacts", PaginationConfig={"PageSize": 2}))

    assert [one["Prefix"] for one in found["CommonPrefixes"]] == ["a/", "b/"]
    assert [one["Key"] for one in found["Contents"]] == ["c", "d&<e"]
    assert [one["Key"] for one in below["Contents"]] == ["a/1", "a/2"]
    assert [one["Key"] for page in pages for one in page["Contents"]] == ["a/1", "a/2", "b/1", "c", "d&<e"]


def test_object_when_deleted_then_gone(s3: Any) -> None:
    s3.put_object(Bucket="artifacts", Key="k", Body=b"x")

    s3.delete_object(Bucket="artifacts", Key="k")

    assert _code(s3.get_object, Bucket="artifacts", Key="k") == "NoSuchKey"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_put_when_checksum_is_sent_then_checked(s3: Any, algorithm: str) -> None:
    s3.put_object(Bucket="artifacts", Key="k", Body=b"hello", ChecksumAlgorithm=algorithm)

    wrong = {f"Checksum{algorithm}": base64.b64encode(b"12345678"[: {"CRC64NVME": 8, "SHA1": 20}.get(algorithm, 4)])}
    assert _code(s3.put_object, Bucket="artifacts", Key="k", Body=b"hello", **_texts(wrong)) == "BadDigest"


def test_put_when_a_large_file_is_uploaded_by_the_transfer_manager_then_whole(s3: Any, tmp_path: Path) -> None:
    data = os.urandom(9 * 1024 * 1024)  # above the 8 MiB from which boto3 uploads in parts
    (tmp_path / "large").write_bytes(data)

    s3.upload_file(str(tmp_path / "large"), "artifacts", "large")

    digest = hashlib.sha256(s3.get_object(Bucket="artifacts", Key="large")["Body"].read()).digest()
    assert digest == hashlib.sha256(data).digest()


def _texts(values: dict[str, bytes]) -> dict[str, str]:
    return {name: value.decode() for name, value in values.items()}


def _upload(service: running_service.Service, mode: str, encode: Any, extra: dict[str, str]) -> tuple[int, bytes]:
    """PUTs /artifacts/streamed in an aws-chunked mode; `encode` gets the claim of the signed head."""
    url = f"{service.held.endpoints.api}/artifacts/streamed"
    host = service.held.endpoints.api.removeprefix("http://")
    headers = {"host": host, "content-encoding": "aws-chunked", "x-amz-content-sha256": mode, **extra}
    request = botocore.awsrequest.AWSRequest("PUT", url, headers=headers)
    request.context["timestamp"] = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    key = botocore.credentials.Credentials(service.key.id, service.key.secret)
    signer = botocore.auth.S3SigV4Auth(key, "s3", "us-east-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))
    sent = tuple((name.lower(), value) for name, value in request.headers.items())
    body = encode(identity.read(identity.Request("PUT", "/artifacts/streamed", "", sent)))
    with contextlib.closing(service.connect()) as connection:
        connection.request("PUT", "/artifacts/streamed", body, dict(sent))
        answer = connection.getresponse()
        return answer.status, answer.read()


def _trailer(value: str) -> bytes:
    return b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\nx-amz-checksum-crc32:" + value.encode() + b"\r\n\r\n"


def test_put_when_unsigned_chunks_with_trailer_then_taken(service: running_service.Service, s3: Any) -> None:
    crc = base64.b64encode(zlib.crc32(b"abcdefgh").to_bytes(4, "big")).decode()
    extra = {"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-decoded-content-length": "8"}

    status, _ = _upload(service, chunked.UNSIGNED_TRAILER, lambda _: _trailer(crc), extra)

    assert status == 200
    assert s3.get_object(Bucket="artifacts", Key="streamed")["Body"].read() == b"abcdefgh"


@pytest.mark.parametrize(
    "body",
    [_trailer("AAAAAA=="), _trailer("")[:20], b"zz\r\n", b"3\r\nabcd\r\n", b"ffffffff\r\n", b"3\r\nabc\r\n0\r\n\r\n"],
)
def test_put_when_chunks_or_trailer_are_wrong_then_400_and_nothing_kept(
    service: running_service.Service, s3: Any, body: bytes
) -> None:
    extra = {"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-decoded-content-length": "8"}

    status, _ = _upload(service, chunked.UNSIGNED_TRAILER, lambda _: body, extra)

    assert status == 400
    assert _code(s3.get_object, Bucket="artifacts", Key="streamed") == "NoSuchKey"
    assert list((service.root / "objects" / "incoming").iterdir()) == []


def _signed_chunks(service: running_service.Service, blocks: list[bytes], spoil: bool) -> Any:
    def encode(claim: identity.Claim) -> bytes:
        key, previous, out = identity.signing_key(claim, service.key.secret), claim.signature, b""
        empty = hashlib.sha256(b"").hexdigest()
        for block in [*blocks, b""]:
            digest = hashlib.sha256(block).hexdigest()
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{claim.timestamp}\n{claim.scope}\n{previous}\n{empty}\n{digest}"
            previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            shown = previous if not spoil else "0" * 64
            out += f"{len(block):x};chunk-signature={shown}\r\n".encode() + block + b"\r\n"
        return out

    return encode


@pytest.mark.parametrize(("spoil", "wanted"), [(False, 200), (True, 403)])
def test_put_when_chunks_are_signed_then_verified(
    service: running_service.Service, s3: Any, spoil: bool, wanted: int
) -> None:
    encode = _signed_chunks(service, [b"abc" * 30_000, b"tail"], spoil)

    status, _ = _upload(service, chunked.SIGNED, encode, {"x-amz-decoded-content-length": "90004"})

    assert status == wanted


def test_sts_when_asked_then_account_and_user(service: running_service.Service) -> None:
    found = service.client("sts").get_caller_identity()

    assert found["Account"] == running_service.ACCOUNT
    assert found["Arn"] == f"arn:aws:iam::{running_service.ACCOUNT}:user/operator"
