"""GetSecretValue for the unmodified official client, from a secret manager that has fetched from moto's server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.actors import secrets, strongbox
from nucleus.core import secrets as words
from nucleus.host import logs
from nucleus.ipc import connection
from nucleus.store import secrets as secrets_store
from tests.nucleus import cloud_secrets, fakes_ipc
from tests.nucleus.ipc import raw

MANAGER = "aws.greengrass.SecretManager"


@pytest.fixture(scope="module")
def service() -> Iterator[cloud_secrets.Service]:
    with cloud_secrets.serving() as one:
        yield one


class Device:
    """A server with a secret manager for two secrets: a text by its ARN, bytes by a part of theirs."""

    def __init__(self, folder: Path, socket: Path, service: cloud_secrets.Service) -> None:
        self.service = service
        self.cloud = cloud_secrets.Device(folder, service.url)
        self.name, self.arn = service.create("old")
        _, self.bytes_arn = service.create(b"\x00\xff")
        configured = {"cloudSecrets": [{"arn": self.arn, "labels": ["blue"]}, {"arn": self.bytes_arn[:-7]}]}
        log = logs.Log("test", directory=folder)
        box = strongbox.Strongbox(secrets_store.SecretStore(folder / "secrets"), self.cloud.key, log)
        self.fetched = asyncio.Event()
        self.manager = secrets.Secrets(
            box, self.cloud.fetch, lambda: words.read(configured), log, lambda _why: self.fetched.set()
        )
        self.world = fakes_ipc.World(socket, connection.Limits(), secrets=self.manager)

    def allow(self, component: str, *resources: str) -> None:
        policy = {"operations": ["aws.greengrass#GetSecretValue"], "resources": list(resources)}
        self.world.add(component, access={MANAGER: {"p": policy}})

    async def get(self, component: str, **request: Any) -> Any:
        return await asyncio.to_thread(self._get, component, request)

    def _get(self, component: str, request: dict[str, Any]) -> Any:
        token = f"token-{component}"
        low = awsiot.greengrasscoreipc.connect(ipc_socket=str(self.world.path), authtoken=token, timeout=10)
        client = clientv2.GreengrassCoreIPCClientV2(client=low)
        try:
            return client.get_secret_value(**request)
        finally:
            client.close().result(10)


@pytest.fixture
async def device(tmp_path: Path, socket_path: Path, service: cloud_secrets.Service) -> AsyncIterator[Device]:
    one = Device(tmp_path, socket_path, service)
    async with asyncio.TaskGroup() as group, fakes_ipc.serving(one.world):
        task = group.create_task(one.manager.run())
        async with asyncio.timeout(30):
            await one.fetched.wait()
        yield one
        task.cancel()
    await one.cloud.http.close()


async def test_get_when_allowed_then_every_member_as_the_model_has_it(device: Device) -> None:
    device.allow("app", device.arn)

    found = [await device.get("app", secret_id=id_) for id_ in (device.arn, device.name)]

    for one in found:
        assert isinstance(one, model.GetSecretValueResponse)
        assert (one.secret_id, one.version_stage) == (device.arn, ["AWSCURRENT"])
        assert one.secret_value == model.SecretValue(secret_string="old")
        assert one.version_id


async def test_get_when_the_value_is_binary_then_bytes(device: Device) -> None:
    device.allow("app", device.bytes_arn[:-6] + "*")

    found = await device.get("app", secret_id=device.bytes_arn)

    assert found.secret_value.secret_binary == b"\x00\xff"
    assert found.secret_value.secret_string is None


async def test_get_when_refresh_then_the_new_value_and_offline_the_stored_one(device: Device) -> None:
    device.allow("app", "*")
    before = await device.get("app", secret_id=device.name)
    version = device.service.put(device.arn, "new")

    stored = await device.get("app", secret_id=device.name)
    fresh = await device.get("app", secret_id=device.name, refresh=True)
    device.cloud.offline = True
    offline = await device.get("app", secret_id=device.name, refresh=True)

    assert stored == before
    assert (fresh.version_id, fresh.secret_value.secret_string) == (version, "new")
    assert offline == fresh


async def test_get_when_a_label_appears_later_then_it_is_fetched_for_the_request(device: Device) -> None:
    device.allow("app", "*")
    with pytest.raises(model.ResourceNotFoundError) as caught:
        await device.get("app", secret_id=device.arn, version_stage="blue")
    assert "labelled blue" in str(caught.value.message)
    version = device.service.put(device.arn, "blue value", "blue")

    found = await device.get("app", secret_id=device.arn, version_stage="blue", refresh=True)
    by_id = await device.get("app", secret_id=device.arn, version_id=version)

    assert (found.version_id, found.version_stage) == (version, ["blue"])
    assert by_id == found


@pytest.mark.parametrize("resources", [[], ["arn:aws:secretsmanager:*:secret:other*"], ["{name}"], ["{arn}x"]])
async def test_get_when_no_policy_covers_the_arn_then_unauthorized_in_the_originals_words(
    device: Device, resources: list[str]
) -> None:
    device.allow("app", *(one.format(name=device.name, arn=device.arn) for one in resources))

    for id_ in (device.name, device.arn, device.arn[:-7]):
        with pytest.raises(model.UnauthorizedError) as caught:
            await device.get("app", secret_id=id_)
        assert caught.value.message == (
            f"Principal app is not authorized to perform {MANAGER}:aws.greengrass#GetSecretValue on resource {device.arn}"
        )


async def test_get_when_the_policy_changes_then_it_counts_at_once(device: Device) -> None:
    device.allow("app", device.arn)
    await device.get("app", secret_id=device.name)
    policy = ("services", "app", "configuration", "accessControl", MANAGER)
    device.world.drop(policy)

    with pytest.raises(model.UnauthorizedError):
        await device.get("app", secret_id=device.name)


@pytest.mark.parametrize("id_", ["nobody", "", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:nobody-AbC123"])
async def test_get_when_it_is_not_configured_then_not_found_even_for_who_may_read_all(device: Device, id_: str) -> None:
    device.allow("app", "*")

    with pytest.raises(model.ResourceNotFoundError) as caught:
        await device.get("app", secret_id=id_)
    assert "does not configure it" in str(caught.value.message)


async def test_get_when_id_and_label_are_both_given_then_a_service_error(device: Device) -> None:
    device.allow("app", "*")

    with pytest.raises(model.ServiceError) as caught:
        await device.get("app", secret_id=device.arn, version_id="v", version_stage="AWSCURRENT")
    assert "both given" in str(caught.value.message)


async def test_get_when_the_device_has_no_cloud_then_a_service_error_that_says_what_to_set_up(
    socket_path: Path,
) -> None:
    async with fakes_ipc.serving(fakes_ipc.World(socket_path, connection.Limits())) as world:
        world.add("app", access={MANAGER: {"p": {"operations": ["*"], "resources": ["*"]}}})
        answer = await asyncio.to_thread(_raw, socket_path, "x")

    assert answer["_errorCode"] == "ServiceError"
    assert "iotRoleAlias" in answer["_message"]


async def test_get_when_the_wire_is_looked_at_then_bytes_are_base64(device: Device) -> None:
    device.allow("app", "*")

    found = await asyncio.to_thread(_raw, device.world.path, device.bytes_arn)

    assert found["secretValue"] == {"secretBinary": base64.b64encode(b"\x00\xff").decode()}
    assert (found["secretId"], found["versionStage"]) == (device.bytes_arn, ["AWSCURRENT"])


def _raw(socket: Path, secret: str) -> Any:
    with raw.Raw(socket, "token-app") as client:
        return raw.body(client.call(1, "GetSecretValue", {"secretId": secret}))
