"""The four operations for brokers of client devices (spec/ipc.md 3, 3.3).

Who a client device is, the cloud says by a route of our own service. Tokens do not outlive the daemon's process: after a
restart brokers get InvalidClientDeviceAuthTokenError and ask for new ones.
"""

from __future__ import annotations

from typing import Any

from nucleus.core import builtin, client_devices, errors
from nucleus.ipc import call, ports
from nucleus.store import client_devices as store
from nucleus.wire import rpc


async def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """The component's server certificate right behind the answer, and every later one."""
    certificates = _auth(one).certificates
    if not one.resumed:  # the image before this one has told it
        try:
            one.emit(_event(await certificates.current(one.caller)))
        except errors.NucleusError as error:
            raise rpc.OperationError("ServiceError", error.detail) from error
    one.on_end(certificates.subscribe(one.caller, lambda made: one.emit(_event(made))))
    return {}


async def verify(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Whether the certificate is ACTIVE in the account; a text that is no certificate is not."""
    devices = _auth(one).devices
    pem = _member(one, request["credential"], "clientDeviceCertificate")
    try:
        return {"isValidClientDevice": await devices.verify(pem)}
    except errors.NucleusError as error:
        raise rpc.OperationError("ServiceError", error.detail) from error


async def token(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """A token for the client whose id is the thing's name."""
    devices = _auth(one).devices
    credential = request["credential"].get("mqttCredential") or {}
    client_id, pem = (_member(one, credential, name) for name in ("clientId", "certificatePem"))
    try:
        return {"clientDeviceAuthToken": await devices.token(client_id, pem)}
    except client_devices.InvalidCredentialError as error:
        raise rpc.OperationError("InvalidCredentialError", str(error)) from error


def authorize(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Whether the policies of the device's groups allow it."""
    devices = _auth(one).devices
    names = ("clientDeviceAuthToken", "operation", "resource")
    given, operation, resource = (_member(one, request, name) for name in names)
    try:
        return {"isAuthorized": devices.authorize(given, operation, resource)}
    except client_devices.InvalidTokenError as error:
        raise rpc.OperationError("InvalidClientDeviceAuthTokenError", str(error)) from error


def _auth(one: call.Call) -> ports.ClientDeviceAuth:
    found = one.ports.client_devices
    if found is None or not found.in_force():
        what = f"cannot {one.operation}: {builtin.CLIENT_DEVICES} is not here; deploy this built-in component"
        raise rpc.OperationError("ServiceError", what)
    return found


def _member(one: call.Call, members: dict[str, Any], name: str) -> str:
    found = members.get(name)
    if not found:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot {one.operation}: {name} is missing or empty")
    return str(found)


def _event(made: store.Server) -> dict[str, Any]:
    """A CertificateUpdateEvent."""
    update = {"privateKey": made.private_key, "publicKey": made.public_key, "certificate": made.certificate}
    return {"certificateUpdate": update | {"caCertificates": [made.authority]}}
