"""Certificates of devices and of people who listen: made by our own authority."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from cloud.api import calls, errors
from cloud.store import principals

# PENDING_ACTIVATION is provisioning's alone, REGISTER_INACTIVE is deprecated: clients may set these.
_STATUSES = ("ACTIVE", "INACTIVE", "REVOKED")


def create(call: calls.Call) -> dict[str, Any]:
    """CreateKeysAndCertificate. The private key is in this answer and nowhere else."""
    made = call.services.pki.issue_device()
    principals.add_certificate(call.tx, made, "ACTIVE" if call.flag("setAsActive") else "INACTIVE", call.now_ms)
    pair = {"PublicKey": made.public_key, "PrivateKey": made.private_key}
    return {
        "certificateArn": _arn(call, made.id),
        "certificateId": made.id,
        "certificatePem": made.pem,
        "keyPair": pair,
    }


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeCertificate."""
    row = _of_path(call)
    created = calls.seconds(row["created_ms"])
    validity = {"notBefore": calls.seconds(row["not_before_ms"]), "notAfter": calls.seconds(row["not_after_ms"])}
    more = {"certificatePem": row["pem"], "ownedBy": call.services.account, "lastModifiedDate": created}
    return {"certificateDescription": _summary(call, row) | more | {"validity": validity, "customerVersion": 1}}


def listed(call: calls.Call) -> dict[str, Any]:
    """ListCertificates."""
    limit, ascending = call.size("pageSize"), call.flag("isAscendingOrder")
    rows = principals.certificates(call.tx, call.after("marker"), limit + 1, ascending=ascending)
    kept, more = calls.page(rows, limit, lambda row: str(row["id"]), "nextMarker")
    return {"certificates": [_summary(call, row) for row in kept], **more}


def update(call: calls.Call) -> None:
    """UpdateCertificate: the broker ends the sessions of one that is no longer ACTIVE."""
    row, status = _of_path(call), call.first("newStatus")
    if status not in _STATUSES:
        raise errors.invalid_request(
            f"cannot set certificate {row['id']} to {status!r}: not one of {', '.join(_STATUSES)}"
        )
    principals.set_status(call.tx, row["id"], status)


def delete(call: calls.Call) -> None:
    """DeleteCertificate: inactive and attached to nothing, or `forceDelete` (which detaches policies only, as on AWS)."""
    row = _of_path(call)
    if row["status"] == principals.ACTIVE:
        message = f"cannot delete certificate {row['id']}: it is ACTIVE; set it INACTIVE first"
        raise errors.ApiError(406, "CertificateStateException", message)
    attached = principals.policies_on(call.tx, _arn(call, row["id"]))
    if principals.things_of(call.tx, row["id"]) or (attached and not call.flag("forceDelete")):
        message = f"cannot delete certificate {row['id']}: things or policies are attached; detach them first"
        raise errors.ApiError(409, "DeleteConflictException", message)
    for name in attached:
        principals.detach_policy(call.tx, name, _arn(call, row["id"]))
    principals.delete_certificate(call.tx, row["id"])


def of_arn(call: calls.Call, arn: str) -> RowMapping:
    """The certificate of an ARN `…:cert/<id>`."""
    certificate_id = arn.removeprefix(_arn(call, ""))
    if certificate_id == arn or not certificate_id:
        raise errors.invalid_request(f"cannot read principal {arn!r}: here it is {_arn(call, 'ID')}")
    return _existing(call, certificate_id)


def _of_path(call: calls.Call) -> RowMapping:
    return _existing(call, call.path["certificateId"])


def _existing(call: calls.Call, certificate_id: str) -> RowMapping:
    row = principals.certificate(call.tx, certificate_id)
    if row is None:
        raise errors.not_found(f"cannot find certificate {certificate_id}", certificate_id, "certificate")
    return row


def _summary(call: calls.Call, row: RowMapping) -> dict[str, Any]:
    return {
        "certificateArn": _arn(call, row["id"]),
        "certificateId": row["id"],
        "status": row["status"],
        "certificateMode": "DEFAULT",
        "creationDate": calls.seconds(row["created_ms"]),
    }


def _arn(call: calls.Call, certificate_id: str) -> str:
    return call.services.arn("iot", f"cert/{certificate_id}")
