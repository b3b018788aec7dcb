"""A broker component of a real device asks about a second device: verified, authorised, restarted, revoked."""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import client as our_client
from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

AUTH = "aws.greengrass.clientdevices.Auth"
SCRIPT = 'printf %s "$SVCUID" > new && mv new token && exec sleep 1000000'
PUMP = "pump-7"


def _client_device(system: systems.System) -> tuple[str, str]:
    """A second thing with a certificate: its PEM and id."""
    iot = system.client("iot")
    iot.create_thing(thingName=PUMP)
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_thing_principal(thingName=PUMP, principal=made["certificateArn"])
    return made["certificatePem"], made["certificateId"]


def _deploy(system: systems.System, thing: str, component: str, **more: Any) -> None:
    """The broker, and the built-in component with a policy for pumps; waits until it has succeeded."""
    statement = {"effect": "ALLOW", "operations": ["mqtt:publish"], "resources": ["mqtt:topic:pumps/*"]}
    groups = {
        "formatVersion": "2021-03-05",
        "definitions": {"pumps": {"selectionRule": "thingName: pump-*", "policyName": "pumps"}},
        "policies": {"pumps": {"publish": statement}},
    }
    merge = json.dumps({"deviceGroups": groups, **more})
    configured = {"componentVersion": "2.15.0", "configurationUpdate": {"merge": merge}}
    deployment = system.deploy(target(thing), {component: "1.0.0", AUTH: configured})
    ended = system.wait(thing, deployment)
    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended


def _connect(system: systems.System, thing: str, component: str) -> clientv2.GreengrassCoreIPCClientV2:
    token = system.device(thing) / "work" / component / "token"
    systems.wait_for(token.exists, "the component's token", 30)
    low = awsiot.greengrasscoreipc.connect(
        ipc_socket=str(system.device(thing) / "ipc.socket"), authtoken=token.read_text(), timeout=10
    )
    return clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)


def _token(broker: clientv2.GreengrassCoreIPCClientV2, thing: str, pem: str) -> str:
    credential = model.MQTTCredential(client_id=thing, certificate_pem=pem)
    answer = broker.get_client_device_auth_token(credential=model.CredentialDocument(mqtt_credential=credential))
    return str(answer.client_device_auth_token)


def _may(broker: clientv2.GreengrassCoreIPCClientV2, token: str, topic: str) -> bool:
    answer = broker.authorize_client_device_action(
        client_device_auth_token=token, operation="mqtt:publish", resource=f"mqtt:topic:{topic}"
    )
    return bool(answer.is_authorized)


def _is_valid(broker: clientv2.GreengrassCoreIPCClientV2, pem: str) -> bool:
    credential = model.ClientDeviceCredential(client_device_certificate=pem)
    return bool(broker.verify_client_device_identity(credential=credential).is_valid_client_device)


def _restart(system: systems.System, thing: str) -> None:
    """An orderly restart: clients stay connected."""
    log = system.device(thing) / "logs" / "greengrass.log"
    found = json.loads(next((system.device(thing) / "cli_ipc_info").glob("user-*")).read_text())
    before = log.read_text().count("ipc.taken_over")
    cli = our_client.Client(found["domain_socket_path"], found["cli_auth_token"], timeout_s=30)
    cli.call("marram#RestartNucleus", {})
    systems.wait_for(lambda: log.read_text().count("ipc.taken_over") > before, "the next image", 30)
    cli.close()


def test_broker_when_a_second_device_comes_then_it_is_verified_authorised_and_revoked(
    system: systems.System, thing: str, component: str
) -> None:
    pem, certificate_id = _client_device(system)
    system.publish(
        recipe(
            component,
            "1.0.0",
            SCRIPT,
            ComponentConfiguration={
                "DefaultConfiguration": {"accessControl": {AUTH: {"p": {"operations": ["*"], "resources": ["*"]}}}}
            },
        )
    )
    _deploy(system, thing, component, security={"clientDeviceTrustDurationMinutes": 0})
    broker = _connect(system, thing, component)
    own = (system.device(thing) / "device.pem").read_text()

    assert _is_valid(broker, pem)
    token = _token(broker, PUMP, pem)
    assert _may(broker, token, "pumps/7")
    assert not _may(broker, token, "valves/7")
    assert not _may(broker, _token(broker, thing, own), "pumps/7")  # no group selects the core device
    with pytest.raises(model.InvalidCredentialError):
        _token(broker, PUMP, own)

    _restart(system, thing)
    with pytest.raises(model.InvalidClientDeviceAuthTokenError):
        _may(broker, token, "pumps/7")
    assert _may(broker, _token(broker, PUMP, pem), "pumps/7")

    system.client("iot").update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
    assert not _is_valid(broker, pem)
    with pytest.raises(model.InvalidCredentialError):
        _token(broker, PUMP, pem)
    broker.close().result(10)


def test_broker_when_it_subscribes_to_certificates_then_each_comes_once_through_a_restart(
    system: systems.System, thing: str, component: str
) -> None:
    access = {"accessControl": {AUTH: {"p": {"operations": ["*"], "resources": ["*"]}}}}
    system.publish(recipe(component, "1.0.0", SCRIPT, ComponentConfiguration={"DefaultConfiguration": access}))
    _deploy(system, thing, component)
    broker = _connect(system, thing, component)
    events: queue.Queue[Any] = queue.Queue()
    options = model.CertificateOptions(certificate_type="SERVER")
    broker.subscribe_to_certificate_updates(certificate_options=options, on_stream_event=events.put)
    first = events.get(timeout=30).certificate_update

    _restart(system, thing)
    _deploy(system, thing, component, certificates={"serverCertificateValiditySeconds": 172_800})
    second = events.get(timeout=30).certificate_update

    assert second.private_key != first.private_key
    assert second.ca_certificates == first.ca_certificates
    assert events.empty()
    authority = Path(system.device(thing) / "client_devices" / "authority.pem")
    assert [authority.read_text()] == first.ca_certificates
    broker.close().result(10)
