"""A device renews its certificate over mutual TLS; the old one lives until the new one was used."""

from __future__ import annotations

import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.cloud.api import service as running_service

RENEW, CONFIRM = "/marram/v1/certificates/renew", "/marram/v1/certificates/confirm"
GROUPS = "/greengrass/v2/coreDevices/core1/thingGroups"


def request(key: Any) -> bytes:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return json.dumps({"certificateSigningRequest": made.public_bytes(serialization.Encoding.PEM).decode()}).encode()


def renewed(service: running_service.Service, device: running_service.Device) -> running_service.Device:
    """The same device with the certificate it was given."""
    key = ec.generate_private_key(ec.SECP256R1())
    status, _, body = device.request("POST", RENEW, request(key))
    assert status == 200, body
    answer = json.loads(body)
    pem, private = service.root / "new.pem", service.root / "new.key"
    pem.write_text(answer["certificatePem"])
    kind, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, none))
    context = running_service.trusting(service)
    context.load_cert_chain(pem, private)
    return running_service.Device(device.thing, answer["certificateArn"], answer["certificateId"], context, device.port)


def test_renew_when_confirmed_then_the_new_one_may_all_and_the_old_one_nothing(
    service: running_service.Service,
) -> None:
    old = running_service.device(service, "core1")
    new = renewed(service, old)

    assert (old.request("GET", GROUPS)[0], new.request("GET", GROUPS)[0]) == (200, 200)
    before = service.notified
    assert json.loads(new.request("POST", CONFIRM, b"{}")[2]) == {"deactivated": old.certificate_id}
    assert (old.request("GET", GROUPS)[0], new.request("GET", GROUPS)[0]) == (403, 200)
    assert service.notified > before
    assert new.request("POST", CONFIRM, b"{}")[0] == 200


def test_renew_when_asked_again_then_the_unused_one_is_forgotten(service: running_service.Service) -> None:
    old = running_service.device(service, "core1")
    first, second = renewed(service, old), renewed(service, old)

    assert first.request("GET", GROUPS)[0] == 403
    assert second.request("GET", GROUPS)[0] == 200
    assert len(service.client("iot").list_certificates()["certificates"]) == 2


def test_renew_when_no_thing_is_attached_or_key_is_weak_then_refused(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")

    weak = request(rsa.generate_private_key(65_537, 1024))
    assert device.request("POST", RENEW, weak)[0] == 400
    assert device.request("POST", RENEW, b'{"certificateSigningRequest": "x"}')[0] == 400
    service.client("iot").detach_thing_principal(thingName="core1", principal=device.certificate_arn)
    assert device.request("POST", RENEW, request(ec.generate_private_key(ec.SECP256R1())))[0] == 403
