"""Secrets Manager for tests: moto's real server in a process of its own, and what a device needs to ask it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from cloud.store import pki
from nucleus.core import secrets
from nucleus.uplink import http, secretsmanager

REGION = "eu-west-1"
_names = itertools.count(1)


class Service:
    """The running server; `client` is the operator's boto3."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="operator",
            aws_secret_access_key="operator",
            config=Config(retries={"max_attempts": 1}),
        )

    def create(self, value: str | bytes) -> tuple[str, str]:
        """A new secret; returns its name and its ARN."""
        name = f"shop/secret-{next(_names)}"
        given = {"SecretBinary": value} if isinstance(value, bytes) else {"SecretString": value}
        return name, str(self.client.create_secret(Name=name, **given)["ARN"])

    def put(self, arn: str, value: str, *stages: str) -> str:
        """A new version on these labels, AWSCURRENT without any; returns its id."""
        more = {"VersionStages": list(stages)} if stages else {}
        return str(self.client.put_secret_value(SecretId=arn, SecretString=value, **more)["VersionId"])


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next((one for one in process.stderr if "Running on http://" in one), "")
        assert line, "moto's server did not start"
        yield Service(line.split()[-1])
    finally:
        process.kill()
        process.communicate(timeout=20)


class Device:
    """What a device asks with. `offline` True: nothing listens where it asks. `asked` are its questions."""

    def __init__(self, folder: Path, url: str) -> None:
        authority = pki.Authority.create(folder)
        made = authority.issue_device()
        certificate, key = folder / "device.pem", folder / "device.key"
        certificate.write_text(made.pem)
        key.write_text(made.private_key)
        self.key = key
        self.url = url
        self.offline = False
        self.asked: list[secrets.Ask] = []
        self.http = http.Http(certificate=certificate, private_key=key, root_ca=folder / "ca.pem")
        self._manager = secretsmanager.SecretsManager(self.http, self._credentials, self._endpoint, self._region)

    async def fetch(self, ask: secrets.Ask) -> secretsmanager.Answer:
        self.asked.append(ask)
        return await self._manager.get(ask)

    async def _credentials(self) -> secretsmanager.Credentials:
        return secretsmanager.Credentials("ASIADEVICE", "device", "token")

    def _endpoint(self, secret: str) -> str:
        return secrets.endpoint("http://127.0.0.1:1" if self.offline else self.url, secret, REGION)

    def _region(self, secret: str) -> str:
        return secrets.region(secret, REGION)
