"""Component versions through unmodified boto3."""

from __future__ import annotations

import base64
import hashlib
import json

import botocore.exceptions
import pytest
import yaml

from tests.cloud.api import service as running_service

NAME = "com.example.Hello"


def test_create_when_artifact_is_uploaded_then_digest_is_added_and_uri_kept(service: running_service.Service) -> None:
    data = b"print('hello')\n"

    made = service.publish(NAME, "1.0.0", data)
    got = service.client("greengrassv2").get_component(arn=made["arn"])

    assert made["arn"] == service.arn("greengrass", f"components:{NAME}:versions:1.0.0")
    assert made["status"]["componentState"] == "DEPLOYABLE"
    artifact = json.loads(got["recipe"])["Manifests"][0]["Artifacts"][0]
    assert artifact["Uri"] == f"s3://artifacts/{NAME}/1.0.0/hello.py"
    assert artifact["Digest"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert artifact["Algorithm"] == "SHA-256"
    with service.held.database.read() as tx:
        from cloud.store import components

        row = components.get(tx, NAME, "1.0.0")
    assert row is not None
    given = json.loads(row["device_recipe"])["Manifests"][0]["Artifacts"][0]
    identity = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    assert given["Uri"] == f"greengrass:{identity}/hello.py"
