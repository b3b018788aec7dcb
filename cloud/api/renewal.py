"""A device renews its own certificate over mutual TLS (routes below /marram/v1/certificates).

Only a certificate that speaks for a thing may: a claim, which many devices share, may not.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cloud.api import calls, errors
from cloud.store import renewals


class RenewBody(Struct, frozen=True, rename="camel"):
    """The body of POST …/renew: the request for the device's new key, PEM."""

    certificate_signing_request: str


def renew(call: calls.Call) -> dict[str, Any]:
    """POST …/renew: a certificate for the key of the request, good beside the caller's own until that is confirmed."""
    device, body = call.device, call.read(RenewBody)
    assert device is not None  # the route says so
    if not device.things:
        raise errors.denied("cannot renew this certificate: no thing is attached to it")
    try:
        made = call.services.pki.issue_from_csr(body.certificate_signing_request)
    except ValueError as error:
        field = [("certificateSigningRequest", str(error))]
        raise errors.validation(f"cannot renew this certificate: {error}", field) from None
    prefix = call.services.arn("iot", "cert/")
    renewals.begin(call.tx, device.certificate_id, made, prefix, call.now_ms)
    return {"certificateId": made.id, "certificateArn": prefix + made.id, "certificatePem": made.pem}


def confirm(call: calls.Call) -> dict[str, Any]:
    """POST …/confirm, with the new certificate: the old one becomes INACTIVE. Repeating is harmless."""
    assert call.device is not None  # the route says so
    old = renewals.confirm(call.tx, call.device.certificate_id)
    return {"deactivated": old} if old is not None else {}
