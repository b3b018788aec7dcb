"""Fleet provisioning over MQTT: a certificate for who comes with a claim, and the thing it is for (spec/cloud.md 4.2).

Answers hold private keys and ownership tokens. They go to the client that asked and to nobody else, they are written to
no table, and one that is lost is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy
from msgspec import Struct

from cloud.core import provisioning_template
from cloud.mqtt import port
from cloud.store import pki
from cloud.store import provisioning as store

CERTIFICATES = "$aws/certificates/"
TEMPLATES = "$aws/provisioning-templates/"
_STATUS_CODES = {"InvalidRequest": 400, "InvalidCertificateOwnershipToken": 400, "ResourceNotFound": 404}


class Reply(Struct, frozen=True):
    """A message for one client."""

    topic: str
    payload: bytes
    client_id: str


class _FromCsr(Struct, rename="camel"):
    certificate_signing_request: str


class _Provision(Struct, rename="camel"):
    certificate_ownership_token: str
    parameters: dict[str, str] = {}


class _RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Provisioner:
    """The service side; `arn_prefix` is `arn:aws:iot:REGION:ACCOUNT:`, `changed` wakes the pusher of principals."""

    def __init__(self, authority: pki.Authority, arn_prefix: str, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._authority = authority
        self._arn_prefix = arn_prefix

    def handle(self, tx: sqlalchemy.Connection, message: port.Inbound, now_ms: int) -> Reply | None:
        """Does what a request asks; None if the topic is no request. What fails leaves nothing behind."""
        operation = self._operation(message.topic)
        if operation is None:
            return None
        try:
            with tx.begin_nested():
                answer, word = operation(tx, message.payload, now_ms), "accepted"
        except (_RefusedError, ValueError, msgspec.DecodeError) as error:
            code = error.code if isinstance(error, _RefusedError) else "InvalidRequest"
            answer = {"statusCode": _STATUS_CODES[code], "errorCode": code, "errorMessage": str(error)}
            word = "rejected"
        return Reply(f"{message.topic}/{word}", msgspec.json.encode(answer), message.client_id)

    def _operation(self, topic: str) -> Callable[[sqlalchemy.Connection, bytes, int], dict[str, Any]] | None:
        match topic.split("/"):
            case ["$aws", "certificates", "create", "json"]:
                return self._create
            case ["$aws", "certificates", "create-from-csr", "json"]:
                return self._create_from_csr
            case ["$aws", "provisioning-templates", name, "provision", "json"]:
                return lambda tx, payload, now_ms: self._provision(tx, name, payload, now_ms)
        return None

    def _create(self, tx: sqlalchemy.Connection, payload: bytes, now_ms: int) -> dict[str, Any]:
        msgspec.json.decode(payload or b"{}", type=dict[str, Any])
        made = self._authority.issue_device()
        return _certificate(made, store.keep(tx, made, now_ms)) | {"privateKey": made.private_key}

    def _create_from_csr(self, tx: sqlalchemy.Connection, payload: bytes, now_ms: int) -> dict[str, Any]:
        request = msgspec.json.decode(payload, type=_FromCsr)
        made = self._authority.issue_from_csr(request.certificate_signing_request)
        return _certificate(made, store.keep(tx, made, now_ms))

    def _provision(self, tx: sqlalchemy.Connection, name: str, payload: bytes, now_ms: int) -> dict[str, Any]:
        request = msgspec.json.decode(payload, type=_Provision)
        row = store.find(tx, name)
        if row is None or not row["enabled"]:
            raise _RefusedError("ResourceNotFound", f"there is no enabled provisioning template {name}")
        certificate_id = store.owned(tx, request.certificate_ownership_token, now_ms)
        if certificate_id is None:
            why = "the certificate ownership token is unknown, used, or older than an hour"
            raise _RefusedError("InvalidCertificateOwnershipToken", why)
        wanted = provisioning_template.fill(provisioning_template.read(row["body"]), request.parameters, certificate_id)
        store.provision(tx, wanted, certificate_id, self._arn_prefix, now_ms)
        return {"thingName": wanted.thing, "deviceConfiguration": wanted.device_configuration}


def _certificate(made: pki.Certificate, token: str) -> dict[str, Any]:
    return {"certificateId": made.id, "certificatePem": made.pem, "certificateOwnershipToken": token}
