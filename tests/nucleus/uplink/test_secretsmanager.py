"""Questions to Secrets Manager: signed so that a verifier agrees, and answers taken only if they are what was asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.api import identity
from nucleus.core import errors, secrets
from nucleus.uplink import dataplane, secretsmanager
from tests.nucleus import cloud_secrets

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop/db-AbC123"
ASK = secrets.Ask(ARN, "AWSCURRENT")
GOOD: dict[str, Any] = {
    "ARN": ARN,
    "Name": "shop/db",
    "VersionId": "v1",
    "VersionStages": ["AWSCURRENT"],
    "SecretString": "hällo",
    "CreatedDate": 1.7e9,
}


class Service:
    """Answers every request with `status` and `body`; keeps the last one it heard."""

    def __init__(self) -> None:
        self.status, self.body = 200, json.dumps(GOOD).encode()
        self.head, self.heard, self.url = b"", b"", ""

    def says(self, answer: dict[str, Any], status: int = 200) -> None:
        self.status, self.body = status, json.dumps(answer).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                line for line in self.head.decode().lower().split("\r\n") if line.startswith("content-length")
            )
            self.heard = await reader.readexactly(int(length.split(":")[1]))
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (self.status, len(self.body)) + self.body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    one = Service()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield one
    server.close()
    await server.wait_closed()


@pytest.fixture
async def device(tmp_path: Path, service: Service) -> AsyncIterator[cloud_secrets.Device]:
    one = cloud_secrets.Device(tmp_path, service.url)
    yield one
    await one.http.close()


async def test_get_when_answered_then_version_and_value_and_the_question_was_signed(
    service: Service, device: cloud_secrets.Device
) -> None:
    found = await device.fetch(ASK)

    assert found == secretsmanager.Answer(secrets.Version(ARN, "shop/db", "v1", ("AWSCURRENT",)), "hällo".encode())
    assert json.loads(service.heard) == {"SecretId": ARN, "VersionStage": "AWSCURRENT"}
    first, *lines = service.head.decode().strip().split("\r\n")
    fields = tuple((name.lower(), value) for name, value in (line.split(": ", 1) for line in lines))
    asked = identity.Request(first.split()[0], first.split()[1], "", fields)
    claim = identity.read(asked)
    assert claim.scope.endswith("/eu-west-1/secretsmanager/aws4_request")
    assert (claim.key_id, identity.session_token(asked)) == ("ASIADEVICE", "token")
    assert asked.header("x-amz-target") == "secretsmanager.GetSecretValue"
    identity.verify(claim, asked, "device", service.heard, now_ms=time.time_ns() // 1_000_000)


async def test_get_when_the_value_is_binary_then_its_bytes(service: Service, device: cloud_secrets.Device) -> None:
    answer = {name: value for name, value in GOOD.items() if name != "SecretString"}
    service.says(answer | {"SecretBinary": base64.b64encode(b"\x00\xff").decode()})

    found = await device.fetch(ASK)

    assert (found.value, found.version.is_binary) == (b"\x00\xff", True)


@pytest.mark.parametrize(
    ("status", "answer", "code", "again"),
    [
        (400, {"__type": "ResourceNotFoundException", "message": "can't find it"}, "RESOURCE_NOT_FOUND", False),
        (400, {"__type": "com.amazonaws.secretsmanager#AccessDeniedException"}, "ACCESS_DENIED", False),
        (403, {}, "ACCESS_DENIED", False),
        (400, {"__type": "InvalidRequestException"}, "BAD_REQUEST", False),
        (400, {"__type": "ThrottlingException"}, "SERVER_ERROR", True),
        (400, {"__type": "ExpiredTokenException"}, "SERVER_ERROR", True),
        (500, {"__type": "InternalServiceError"}, "SERVER_ERROR", True),
        (429, {}, "SERVER_ERROR", True),
    ],
)
async def test_get_when_refused_then_an_error_that_says_whether_to_try_again(
    service: Service, device: cloud_secrets.Device, status: int, answer: dict[str, Any], code: str, again: bool
) -> None:
    service.says(answer, status)

    with pytest.raises(errors.NucleusError, match=r"cannot fetch secret .*shop/db.* \(AWSCURRENT\)") as caught:
        await device.fetch(ASK)

    assert caught.value.code == code
    assert isinstance(caught.value, dataplane.Unavailable) is again


@pytest.mark.parametrize(
    "change",
    [
        {"ARN": ARN.replace("db", "other")},
        {"ARN": None},
        {"Name": 7},
        {"VersionId": ""},
        {"VersionStages": []},
        {"VersionStages": "AWSCURRENT"},
        {"VersionStages": ["AWSPREVIOUS"]},
        {"SecretString": None},
        {"SecretString": 7},
        {"SecretString": "\ud800"},
        {"SecretString": None, "SecretBinary": "no base64"},
    ],
)
async def test_get_when_the_answer_is_not_what_was_asked_for_then_refused(
    service: Service, device: cloud_secrets.Device, change: dict[str, Any]
) -> None:
    service.says(GOOD | change)

    with pytest.raises(dataplane.Unavailable, match="cannot fetch secret"):
        await device.fetch(ASK)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b"[" * 100_000, b'{"a": "%s"}' % (b"x" * 600_000), b"x" * 5_000_000]
)
async def test_get_when_the_answer_is_no_secret_or_too_large_then_refused_as_a_fault_of_now(
    service: Service, device: cloud_secrets.Device, body: bytes
) -> None:
    service.body = body

    with pytest.raises(dataplane.Unavailable):
        await device.fetch(ASK)


async def test_get_when_the_value_is_larger_than_a_secret_may_be_then_refused(
    service: Service, device: cloud_secrets.Device
) -> None:
    service.says(GOOD | {"SecretString": "x" * 65_537})

    with pytest.raises(errors.NucleusError, match="larger than 65536 bytes"):
        await device.fetch(ASK)


async def test_get_when_nobody_listens_then_a_network_error(device: cloud_secrets.Device) -> None:
    device.offline = True

    with pytest.raises(dataplane.Unavailable) as caught:
        await device.fetch(ASK)

    assert caught.value.code == "NETWORK_ERROR"
