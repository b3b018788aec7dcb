"""The four operations for brokers through the unmodified official client, each with every error it declares."""

from __future__ import annotations

import asyncio
import queue
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot.greengrasscoreipc import clientv2, model

from nucleus import vault as vault_process
from nucleus.actors import client_devices, server_certificates
from nucleus.core import client_devices as words
from nucleus.core import errors
from nucleus.host import logs, vault
from nucleus.ipc import connection, ports
from nucleus.store import client_devices as store
from nucleus.uplink import dataplane
from tests.nucleus import fakes_ipc

AUTH = "aws.greengrass.clientdevices.Auth"
EVERYTHING = {AUTH: {"p": {"operations": ["*"], "resources": ["*"]}}}
PEM, STRANGER = (
    vault_process.authority({"items": [{"name": "device", "from": 0, "until": 2_000_000_000}]})["items"][0][
        "certificate"
    ]
    for _ in range(2)
)
GROUPS = {
    "definitions": {"g": {"selectionRule": "thingName: pump*", "policyName": "p"}},
    "policies": {
        "p": {"s": {"operations": ["mqtt:publish"], "resources": ["mqtt:topic:${iot:Connection.Thing.ThingName}/*"]}}
    },
}


class Device:
    """A server whose cloud knows one client device, `pump-1`, and may be away."""

    def __init__(self, folder: Path, socket: Path) -> None:
        log = logs.Log("test", directory=folder)
        kept = store.ClientDeviceStore(folder / "client_devices")
        self.is_away, self.is_deployed = False, True
        self.configuration: dict[str, Any] = {"deviceGroups": GROUPS}
        self.devices = client_devices.ClientDevices(kept, self._ask, self._read, log)
        self.certificates = server_certificates.ServerCertificates(
            kept, self._vault, lambda: ["10.1.2.3"], self._read, log
        )
        auth = ports.ClientDeviceAuth(self.devices, self.certificates, lambda: self.is_deployed)
        self.world = fakes_ipc.World(socket, connection.Limits(), client_devices=auth)
        self.clients: list[clientv2.GreengrassCoreIPCClientV2] = []
        self.is_broken = False

    def _read(self) -> words.Settings:
        return words.read(self.configuration)

    async def _vault(self, operation: str, request: Any) -> dict[str, Any]:
        if self.is_broken:
            raise errors.NucleusError("IO_ERROR", "cannot make it: no cryptography")
        return await vault.call(operation, request)

    async def _ask(self, pem: str, thing: str) -> tuple[bool, float]:
        if self.is_away:
            raise dataplane.Unavailable("NETWORK_ERROR", "cannot verify: the cloud is away")
        return pem == PEM and thing in ("", "pump-1"), 2_000_000_000.0

    def client(self, name: str = "broker", access: Any = EVERYTHING) -> clientv2.GreengrassCoreIPCClientV2:
        self.world.do(lambda: self.world.add(name, access=access))
        low = awsiot.greengrasscoreipc.connect(ipc_socket=str(self.world.path), authtoken=f"token-{name}", timeout=10)
        self.clients.append(clientv2.GreengrassCoreIPCClientV2(client=low, executor=None))
        return self.clients[-1]


@pytest.fixture
def device(tmp_path: Path, socket_path: Path) -> Iterator[Device]:
    one = Device(tmp_path, socket_path)
    with fakes_ipc.serving_in_thread(one.world):
        yield one
        for client in one.clients:
            client.close().result(10)


def identity(pem: str) -> model.ClientDeviceCredential:
    return model.ClientDeviceCredential(client_device_certificate=pem)


def credential(client_id: str, pem: str) -> model.CredentialDocument:
    return model.CredentialDocument(mqtt_credential=model.MQTTCredential(client_id=client_id, certificate_pem=pem))


SERVER = model.CertificateOptions(certificate_type="SERVER")
CALLS: dict[str, dict[str, Any]] = {
    "verify_client_device_identity": {"credential": identity(PEM)},
    "get_client_device_auth_token": {"credential": credential("pump-1", PEM)},
    "authorize_client_device_action": {
        "client_device_auth_token": "x",
        "operation": "mqtt:publish",
        "resource": "mqtt:topic:a",
    },
    "subscribe_to_certificate_updates": {"certificate_options": SERVER, "on_stream_event": print},
}


@pytest.mark.parametrize("operation", CALLS)
def test_operation_when_no_policy_allows_it_then_unauthorized(device: Device, operation: str) -> None:
    with pytest.raises(model.UnauthorizedError):
        getattr(device.client(access={}), operation)(**CALLS[operation])


@pytest.mark.parametrize("operation", CALLS)
def test_operation_when_the_built_in_is_not_deployed_then_a_service_error_names_it(
    device: Device, operation: str
) -> None:
    device.is_deployed = False

    with pytest.raises(model.ServiceError) as error:
        getattr(device.client(), operation)(**CALLS[operation])

    assert f"{AUTH} is not here; deploy this built-in component" in str(error.value.message)


@pytest.mark.parametrize(("pem", "is_valid"), [(PEM, True), (STRANGER, False), ("no certificate", False)])
def test_verify_when_the_cloud_can_be_asked_then_its_answer(device: Device, pem: str, is_valid: bool) -> None:
    answer = device.client().verify_client_device_identity(credential=identity(pem))

    assert answer.is_valid_client_device is is_valid


def test_verify_when_it_cannot_be_found_out_then_a_service_error_with_the_reason(device: Device) -> None:
    device.is_away = True

    with pytest.raises(model.ServiceError) as error:
        device.client().verify_client_device_identity(credential=identity(PEM))

    assert error.value.message == "cannot verify: the cloud is away"


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("verify_client_device_identity", {"credential": identity("")}),
        (
            "get_client_device_auth_token",
            {"credential": model.CredentialDocument(mqtt_credential=model.MQTTCredential())},
        ),
        ("get_client_device_auth_token", {"credential": credential("", PEM)}),
        ("get_client_device_auth_token", {"credential": credential("pump-1", "")}),
        *(
            ("authorize_client_device_action", {**CALLS["authorize_client_device_action"], name: ""})
            for name in CALLS["authorize_client_device_action"]
        ),
        (
            "subscribe_to_certificate_updates",
            {"certificate_options": model.CertificateOptions(certificate_type="CLIENT"), "on_stream_event": print},
        ),
    ],
)
def test_operation_when_a_member_is_missing_or_wrong_then_invalid_arguments(
    device: Device, operation: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        getattr(device.client(), operation)(**request_)


def test_token_when_the_device_is_verified_then_it_may_what_its_policy_says(device: Device) -> None:
    client = device.client()
    token = client.get_client_device_auth_token(credential=credential("pump-1", PEM)).client_device_auth_token

    def may(operation: str, resource: str) -> bool:
        answer = client.authorize_client_device_action(
            client_device_auth_token=token, operation=operation, resource=resource
        )
        return bool(answer.is_authorized)

    assert may("mqtt:publish", "mqtt:topic:pump-1/flow")
    assert not may("mqtt:publish", "mqtt:topic:pump-2/flow")
    assert not may("mqtt:subscribe", "mqtt:topic:pump-1/flow")
    device.configuration = {}
    device.world.do(device.devices.changed)
    assert not may("mqtt:publish", "mqtt:topic:pump-1/flow")


@pytest.mark.parametrize(
    ("client_id", "pem", "is_away", "why"),
    [
        ("pump-2", PEM, False, "no thing pump-2 of this account has this certificate"),
        ("pump-1", STRANGER, False, "no thing pump-1 of this account has this certificate"),
        ("pump-1", "no certificate", False, "no thing pump-1"),
        ("pump-1", PEM, True, "the cloud is away"),
    ],
)
def test_token_when_the_device_cannot_be_verified_then_invalid_credential(
    device: Device, client_id: str, pem: str, is_away: bool, why: str
) -> None:
    device.is_away = is_away

    with pytest.raises(model.InvalidCredentialError) as error:
        device.client().get_client_device_auth_token(credential=credential(client_id, pem))

    assert why in str(error.value.message)


def test_authorize_when_the_token_is_unknown_then_invalid_client_device_auth_token(device: Device) -> None:
    with pytest.raises(model.InvalidClientDeviceAuthTokenError):
        device.client().authorize_client_device_action(**CALLS["authorize_client_device_action"])


def test_subscribe_when_answered_then_a_certificate_that_serves_tls_and_later_another(
    device: Device, tmp_path: Path
) -> None:
    events: queue.Queue[Any] = queue.Queue()
    client = device.client()
    _, stream = client.subscribe_to_certificate_updates(certificate_options=SERVER, on_stream_event=events.put)
    first = events.get(timeout=20).certificate_update
    assert len(first.ca_certificates) == 1
    _handshake(first, tmp_path)

    device.configuration = {"certificates": {"serverCertificateValiditySeconds": 172_800}}
    assert device.world.loop is not None
    asyncio.run_coroutine_threadsafe(device.certificates.look(), device.world.loop).result(20)
    second = events.get(timeout=20).certificate_update

    assert second.private_key != first.private_key
    assert second.ca_certificates == first.ca_certificates
    _handshake(second, tmp_path)
    assert events.empty()
    stream.close().result(10)


def test_subscribe_when_no_certificate_can_be_made_then_a_service_error_with_the_reason(device: Device) -> None:
    device.is_broken = True

    with pytest.raises(model.ServiceError) as error:
        device.client().subscribe_to_certificate_updates(certificate_options=SERVER, on_stream_event=print)

    assert error.value.message == "cannot make it: no cryptography"


def _handshake(update: Any, folder: Path) -> None:
    """A TLS client that trusts the update's authority alone shakes hands with a server of the update."""
    pair = folder / "pair.pem"
    pair.write_text(update.certificate + update.private_key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pair)
    asking = ssl.create_default_context(cadata="".join(update.ca_certificates))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = asking.wrap_bio(to_client, to_server, server_hostname="10.1.2.3")
    for one in (client, server, client, server):
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.getpeercert()
