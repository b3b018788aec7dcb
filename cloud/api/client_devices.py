"""A core device asks who a client device is (a route of ours: the original's paths are not public, spec/cloud.md 2.6).

The policies of the core device's certificate decide by the original's actions: `greengrass:VerifyClientDeviceIdentity`, and
`greengrass:VerifyClientDeviceIoTCertificateAssociation` on the thing.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cloud.api import authorisation, calls, errors
from cloud.store import principals
from nucleus.core import certificate

LIMIT_CHARACTERS = 65_536


class VerifyBody(Struct, frozen=True, rename="camel"):
    """The client device's certificate, PEM, and the thing it says it is, if that is asked."""

    certificate_pem: str
    thing_name: str = ""


def verify(call: calls.Call) -> dict[str, Any]:
    """POST …/verify: {"active", "attached", "notAfter" (epoch seconds, 0 for a certificate that is not of this account)}.

    Of a certificate that is not of this account, or not ACTIVE, nothing more is told.
    """
    body = call.read(VerifyBody)
    authorisation.require(call, "greengrass:VerifyClientDeviceIdentity", "*")
    if body.thing_name:
        resource = f"thing/{body.thing_name}"
        authorisation.require(call, "greengrass:VerifyClientDeviceIoTCertificateAssociation", resource)
    try:
        if len(body.certificate_pem) > LIMIT_CHARACTERS:
            raise ValueError(f"it has more than {LIMIT_CHARACTERS} characters")
        found = principals.certificate(call.tx, certificate.fingerprint(body.certificate_pem))
    except ValueError as error:
        why = f"cannot verify the client device: {error}"
        raise errors.validation(why, [("certificatePem", str(error))]) from None
    if found is None or found["status"] != principals.ACTIVE or found["not_after_ms"] < call.now_ms:
        return {"active": False, "attached": False, "notAfter": 0}
    attached = bool(body.thing_name) and body.thing_name in principals.things_of(call.tx, found["id"])
    return {"active": True, "attached": attached, "notAfter": calls.seconds(found["not_after_ms"])}
