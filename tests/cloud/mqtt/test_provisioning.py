"""Fleet provisioning through the services and a broker in memory: who gets what, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.mqtt import provisioning, services
from cloud.store import database, identities, pki, principals
from cloud.store import provisioning as store
from tests.cloud import fakes
from tests.cloud.core import test_provisioning_template as templates

CREATE = "$aws/certificates/create/json"
FROM_CSR = "$aws/certificates/create-from-csr/json"
PROVISION = "$aws/provisioning-templates/T/provision/json"


class Cloud:
    """The services with an authority; `now_ms` is its clock."""

    def __init__(self, root: Path) -> None:
        self.now_ms = 1_700_000_000_000
        self.store = database.Database(f"sqlite:///{root / 'cloud.db'}")
        self.store.create()
        self.broker = fakes.FakeBroker()
        self.changes = 0
        log: Any = fakes.FakeLog()
        provisioner = provisioning.Provisioner(pki.Authority.create(root), "arn:aws:iot:r:1:", self._changed)
        self.services = services.Services(self.store, self.broker, lambda: self.now_ms, lambda: None, log, provisioner)
        with self.store.begin() as tx:
            store.add(tx, "T", 0, description="", body=json.dumps(templates.BODY), role_arn="", enabled=True)
            principals.add_policy(tx, "Core", '{"Statement":[]}', 0)
            identities.create_group(tx, "site-west", None, None, {}, now_ms=0)

    def _changed(self) -> None:
        self.changes += 1

    async def ask(self, topic: str, payload: Any, client: str = "claimant") -> tuple[str, dict[str, Any]]:
        """The answer's last word and what it says."""
        before = len(self.broker.published)
        self.broker.hear(topic, payload, client)
        await self.broker.answer("ed", skip=before)  # accepted or rejected
        answered, body = self.broker.published[-1]
        assert answered.startswith(topic + "/")
        assert self.broker.only[answered] == client
        return answered.rpartition("/")[2], json.loads(body)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    one = Cloud(tmp_path)
    with contextlib.closing(one.store):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.services.run())
            yield one
            task.cancel()


async def test_claim_when_it_goes_well_then_thing_certificate_policy_and_group(cloud: Cloud) -> None:
    word, made = await cloud.ask(CREATE, {})
    assert (word, set(made)) == (
        "accepted",
        {"certificateId", "certificatePem", "privateKey", "certificateOwnershipToken"},
    )
    with cloud.store.read() as tx:
        before = principals.principal(tx, made["certificateId"])
    request = {
        "certificateOwnershipToken": made["certificateOwnershipToken"],
        "parameters": {"SerialNumber": "7"},
    }

    word, found = await cloud.ask(PROVISION, request)

    assert (word, found) == ("accepted", {"thingName": "turbine-7", "deviceConfiguration": {"home": "west"}})
    assert cloud.changes == 2
    with cloud.store.read() as tx:
        after = principals.principal(tx, made["certificateId"])
        assert identities.is_member(tx, "site-west", "turbine-7")
    assert before is not None
    assert not before.active
    assert after is not None
    assert (after.active, after.things, after.policies) == (True, ("turbine-7",), ("Core",))
    assert (await cloud.ask(PROVISION, request))[1]["errorCode"] == "InvalidCertificateOwnershipToken"


async def test_claim_when_it_brings_its_own_key_then_no_private_key_travels(cloud: Cloud) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    text = request.public_bytes(serialization.Encoding.PEM).decode()

    word, made = await cloud.ask(FROM_CSR, {"certificateSigningRequest": text})

    assert (word, set(made)) == ("accepted", {"certificateId", "certificatePem", "certificateOwnershipToken"})
    assert x509.load_pem_x509_certificate(made["certificatePem"].encode()).public_key() == key.public_key()


async def test_token_when_older_than_an_hour_then_refused_and_its_certificate_forgotten(cloud: Cloud) -> None:
    _, made = await cloud.ask(CREATE, {})
    cloud.now_ms += store.TOKEN_MS + 1
    request = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": "7"}}

    word, refused = await cloud.ask(PROVISION, request)
    await cloud.ask(CREATE, {})

    assert (word, refused["statusCode"]) == ("rejected", 400)
    with cloud.store.read() as tx:
        assert principals.certificate(tx, made["certificateId"]) is None


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        (CREATE, b"[", "InvalidRequest"),
        (FROM_CSR, {"certificateSigningRequest": "x"}, "InvalidRequest"),
        (FROM_CSR, {}, "InvalidRequest"),
        (PROVISION, {"certificateOwnershipToken": "x"}, "InvalidCertificateOwnershipToken"),
        (PROVISION.replace("/T/", "/U/"), {"certificateOwnershipToken": "x"}, "ResourceNotFound"),
    ],
)
async def test_request_when_it_cannot_be_met_then_rejected(cloud: Cloud, topic: str, payload: Any, code: str) -> None:
    word, refused = await cloud.ask(topic, payload)

    assert (word, refused["errorCode"]) == ("rejected", code)


async def test_provision_when_a_group_is_missing_then_nothing_of_it_stays(cloud: Cloud) -> None:
    _, made = await cloud.ask(CREATE, {})
    token, parameters = made["certificateOwnershipToken"], {"SerialNumber": "7", "Site": "nowhere"}

    word, refused = await cloud.ask(PROVISION, {"certificateOwnershipToken": token, "parameters": parameters})

    assert (word, "site-nowhere" in refused["errorMessage"]) == ("rejected", True)
    with cloud.store.read() as tx:
        assert identities.thing(tx, "turbine-7") is None
    request = {"certificateOwnershipToken": token, "parameters": {"SerialNumber": "7"}}
    assert (await cloud.ask(PROVISION, request))[0] == "accepted"
