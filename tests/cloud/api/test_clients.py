"""Whole sequences of unmodified clients: the aws command, and what GDK sends when it publishes (spec/cloud.md 1.7)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from cloud.store import fleet
from tests.cloud.api import service as running_service

NAME = "com.example.Hello"


def _report(service: running_service.Service, thing: str, status: str = "HEALTHY") -> None:
    """A fleet status message as a device sends it."""
    component = {"componentName": NAME, "version": "1.0.0", "fleetConfigArns": [], "isRoot": True, "status": "RUNNING"}
    message: dict[str, Any] = {
        "ggcVersion": "2.15.0",
        "platform": "linux",
        "architecture": "amd64",
        "thing": thing,
        "overallDeviceStatus": status,
        "sequenceNumber": 1,
        "timestamp": time.time_ns() // 1_000_000,
        "messageType": "COMPLETE",
        "trigger": "NUCLEUS_LAUNCH",
        "components": [component],
    }
    with service.held.database.begin() as tx:
        assert fleet.ingest(tx, thing, json.dumps(message).encode(), message["timestamp"]) == ""


def _aws(service: running_service.Service, *arguments: str) -> Any:
    """Runs the aws command against the service as a user would: environment variables only."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(service.root),
        "AWS_ENDPOINT_URL": service.held.endpoints.api,
        "AWS_ACCESS_KEY_ID": service.key.id,
        "AWS_SECRET_ACCESS_KEY": service.key.secret,
        "AWS_DEFAULT_REGION": running_service.REGION,
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [str(Path(sys.executable).with_name("aws")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip().startswith("{") else done.stdout


def test_aws_when_devices_reported_then_listed(service: running_service.Service) -> None:
    _report(service, "core1")
    _report(service, "core2", "UNHEALTHY")

    found = _aws(service, "greengrassv2", "list-core-devices", "--status", "HEALTHY")

    (device,) = found["coreDevices"]
    assert (device["coreDeviceThingName"], device["status"], device["platform"]) == ("core1", "HEALTHY", "linux")


def test_aws_when_deploying_then_the_device_has_it_waiting(service: running_service.Service) -> None:
    _report(service, "core1")
    service.publish(NAME, "1.0.0")
    service.client("iot").create_thing(thingName="core1")
    arn = service.arn("iot", "thing/core1")
    components = json.dumps({NAME: {"componentVersion": "1.0.0"}})

    made = _aws(service, "greengrassv2", "create-deployment", "--target-arn", arn, "--components", components)
    listing = ("list-effective-deployments", "--core-device-thing-name", "core1")
    found = _aws(service, "greengrassv2", *listing)

    (one,) = found["effectiveDeployments"]
    assert (one["deploymentId"], one["targetArn"]) == (made["deploymentId"], arn)


def test_aws_when_copying_to_s3_then_there(service: running_service.Service, tmp_path: Path) -> None:
    service.client("s3").create_bucket(Bucket="artifacts")
    (tmp_path / "hello.py").write_text("print('hello')")

    _aws(service, "s3", "cp", str(tmp_path / "hello.py"), "s3://artifacts/a/hello.py")

    got = service.client("s3").get_object(Bucket="artifacts", Key="a/hello.py")
    assert got["Body"].read() == b"print('hello')"


def test_devices_when_asked_then_details_components_and_paging(service: running_service.Service) -> None:
    client = service.client("greengrassv2")
    for number in range(3):
        _report(service, f"core{number}")

    pages = list(client.get_paginator("list_core_devices").paginate(PaginationConfig={"PageSize": 2}))
    device = client.get_core_device(coreDeviceThingName="core1")
    installed = client.list_installed_components(coreDeviceThingName="core1")["installedComponents"]
    client.delete_core_device(coreDeviceThingName="core1")

    assert [one["coreDeviceThingName"] for page in pages for one in page["coreDevices"]] == ["core0", "core1", "core2"]
    assert (device["coreVersion"], device["status"], device["tags"]) == ("2.15.0", "HEALTHY", {})
    assert [(one["componentName"], one["lifecycleState"], one["isRoot"]) for one in installed] == [
        (NAME, "RUNNING", True)
    ]
    for call in (client.get_core_device, client.list_installed_components, client.list_effective_deployments):
        with pytest.raises(botocore.exceptions.ClientError, match="ResourceNotFoundException"):
            call(coreDeviceThingName="core1")


def test_gdk_when_publishing_twice_then_the_patch_grows(service: running_service.Service, tmp_path: Path) -> None:
    """The calls of GDK 1.6.2 in its order."""
    artifact = tmp_path / "hello.zip"
    artifact.write_bytes(b"PK" + b"x" * 5000)

    first = _gdk_publish(service, artifact)
    second = _gdk_publish(service, artifact)

    assert first.endswith(":versions:1.0.0")
    assert second.endswith(":versions:1.0.1")


def _gdk_publish(service: running_service.Service, artifact: Path) -> str:
    account = service.client("sts").get_caller_identity()["Account"]
    greengrass, s3 = service.client("greengrassv2"), service.client("s3")
    arn = f"arn:aws:greengrass:{running_service.REGION}:{account}:components:{NAME}"
    greengrass.list_component_versions(arn=arn)
    held = greengrass.list_component_versions(arn=arn)["componentVersions"]
    version = f"1.0.{int(held[0]['componentVersion'].rpartition('.')[2]) + 1}" if held else "1.0.0"
    bucket = f"gdk-{running_service.REGION}-{account}"
    if not held:
        with pytest.raises(s3.exceptions.NoSuchBucket):
            s3.get_bucket_location(Bucket=bucket)
        s3.create_bucket(Bucket=bucket)
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    key = f"{NAME}/{version}/{artifact.name}"
    s3.upload_file(str(artifact), bucket, key, ExtraArgs={"ContentType": "application/zip"})
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": NAME,
        "ComponentVersion": version,
        "Manifests": [{"Platform": {"os": "all"}, "Artifacts": [{"URI": f"s3://{bucket}/{key}", "Unarchive": "ZIP"}]}],
    }
    return str(greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())["arn"])


async def test_calls_when_many_at_once_then_each_has_its_own_answer(service: running_service.Service) -> None:
    iot = service.client("iot", config={"max_pool_connections": 20})

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(asyncio.to_thread(iot.create_thing, thingName=f"t{number}"))

    assert len(iot.list_things()["things"]) == 20
