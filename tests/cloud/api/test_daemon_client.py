"""The daemon's own client (awscrt) against the device server: both ends of the data plane."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nucleus.core import errors, negotiate
from nucleus.uplink import dataplane, http
from tests.cloud.api import service as running_service

NAME = "com.example.Hello"
LINUX = {"os": "linux", "architecture": "amd64"}


@pytest.fixture
def client(service: running_service.Service) -> http.Http:
    running_service.device(service, "core1")
    root: Path = service.root
    return http.Http(certificate=root / "core1.pem", private_key=root / "core1.key", root_ca=root / "ca.pem")


async def test_daemon_when_resolving_then_candidate_artifact_and_bytes(
    service: running_service.Service, client: http.Http
) -> None:
    data = os.urandom(900_000)
    service.publish(NAME, "1.0.0", data)
    plane = dataplane.DataPlane(client, service.held.endpoints.device, "core1")

    found = await plane.resolve(negotiate.Ask(NAME, (("thinggroup/g", "=1.0.0"),)), LINUX, None)
    artifact = found.recipe.manifests[0].artifacts[0]
    url = await plane.artifact_url(found.arn, artifact.uri.removeprefix("greengrass:"))
    answer = await client.request("GET", url)
    part = await client.request("GET", url, headers={"Range": "bytes=899990-"})
    await client.close()

    assert (found.version, answer.status, part.status) == ("1.0.0", 200, 206)
    assert answer.body == data
    assert part.body == data[899_990:]


async def test_daemon_when_nothing_fits_then_the_field_code(
    service: running_service.Service, client: http.Http
) -> None:
    plane = dataplane.DataPlane(client, service.held.endpoints.device, "core1")

    with pytest.raises(errors.NucleusError) as caught:
        await plane.resolve(negotiate.Ask(NAME, (("thinggroup/g", "=1.0.0"),)), LINUX, None)
    groups = await plane.thing_groups()
    await client.close()

    assert caught.value.code == "NO_AVAILABLE_COMPONENT_VERSION"
    assert groups == set()
