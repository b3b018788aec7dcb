"""A core device asks who a client device is: by certificate, and by certificate and thing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cloud.api import service as running_service

VERIFY = "/marram/v1/client-devices/verify"
NOBODY = {"active": False, "attached": False, "notAfter": 0}


def ask(core: running_service.Device, pem: str, thing: str = "") -> tuple[int, dict[str, Any]]:
    body = {"certificatePem": pem} | ({"thingName": thing} if thing else {})
    status, _, answer = core.request("POST", VERIFY, json.dumps(body).encode())
    return status, json.loads(answer)


def pem_of(service: running_service.Service, device: running_service.Device) -> str:
    found = service.client("iot").describe_certificate(certificateId=device.certificate_id)
    return str(found["certificateDescription"]["certificatePem"])


def test_verify_when_the_certificate_is_active_then_active_and_attached_to_its_thing_only(
    service: running_service.Service,
) -> None:
    core, pump = running_service.device(service, "core1"), running_service.device(service, "pump")
    pem = pem_of(service, pump)

    status, found = ask(core, pem)
    assert (status, found["active"], found["attached"]) == (200, True, False)
    assert found["notAfter"] > service.held.clock() / 1000
    assert ask(core, pem, "pump")[1]["attached"]
    assert not ask(core, pem, "core1")[1]["attached"]
    assert not ask(core, pem, "nobody")[1]["attached"]


def test_verify_when_the_certificate_is_not_active_or_over_then_nothing_more_is_told(
    service: running_service.Service,
) -> None:
    core, pump = running_service.device(service, "core1"), running_service.device(service, "pump")
    pem = pem_of(service, pump)

    service.client("iot").update_certificate(certificateId=pump.certificate_id, newStatus="INACTIVE")

    assert ask(core, pem, "pump") == (200, NOBODY)


def test_verify_when_the_certificate_is_of_another_account_then_not_active(service: running_service.Service) -> None:
    core = running_service.device(service, "core1")

    assert ask(core, service.held.pki.pem, "core1") == (200, NOBODY)


@pytest.mark.parametrize("pem", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_verify_when_it_is_no_certificate_then_a_validation_error(service: running_service.Service, pem: str) -> None:
    status, found = ask(running_service.device(service, "core1"), pem)

    assert status == 400
    assert "cannot verify the client device" in json.dumps(found)


def test_verify_when_the_policy_names_identity_and_one_thing_then_no_other_thing(
    service: running_service.Service,
) -> None:
    actions = ["greengrass:VerifyClientDeviceIdentity", "greengrass:VerifyClientDeviceIoTCertificateAssociation"]
    resources = [service.arn("greengrass", "*"), service.arn("iot", "thing/pump")]
    policy = {"Effect": "Allow", "Action": actions, "Resource": resources}
    core = running_service.device(service, "core1", policy=policy)
    thing_only = running_service.device(service, "core2", policy={**policy, "Resource": resources[1:]})
    pem = pem_of(service, core)

    assert [ask(core, pem, thing)[0] for thing in ("", "pump", "core1")] == [200, 200, 403]
    assert ask(thing_only, pem, "pump")[0] == 403  # the identity is not of one thing
