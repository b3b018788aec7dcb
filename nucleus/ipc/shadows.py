"""The four operations about shadows, and the shape of their messages on local topics (spec/ipc.md 3; spec/nucleus.md 7.8)."""

from __future__ import annotations

import binascii
import hashlib
import json
import time
from typing import Any

from nucleus.actors import shadows
from nucleus.core import shadow
from nucleus.ipc import call, ports
from nucleus.wire import jobs, rpc

PAGE = 25
LARGEST_PAGE = 100
_SHAPES = {
    400: "InvalidArgumentsError",
    404: "ResourceNotFoundError",
    409: "ConflictError",
    413: "InvalidArgumentsError",
}
_MARK_BYTES = 8


def resource(_one: call.Call, request: dict[str, Any]) -> str:
    """What a policy must allow: the prefix of the shadow's topics."""
    thing, name = _ref(request)
    return jobs.shadow(thing, name)


def thing(_one: call.Call, request: dict[str, Any]) -> str:
    """What a policy must allow for a list: the thing."""
    return _ref(request)[0]


async def get(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    return {"payload": _text(await _ask(one, "get", request))}


async def update(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    return {"payload": _text(await _ask(one, "update", request, request["payload"]))}


async def delete(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """The answer is empty, as that of the cloud's HTTP interface."""
    await _ask(one, "delete", request)
    return {"payload": ""}


async def names(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """A page of names in their order; the token of the next one belongs to the caller and the thing."""
    thing_name, size = request["thingName"], request.get("pageSize", PAGE)
    if not 1 <= size <= LARGEST_PAGE:
        raise rpc.OperationError("InvalidArgumentsError", f"pageSize must be between 1 and {LARGEST_PAGE}, not {size}")
    after = _after(one.caller, thing_name, request.get("nextToken") or "")
    try:
        found = await _service(one).names(thing_name, after, size + 1)
    except shadows.Rejected as rejected:
        raise _error(rejected, thing_name, "") from None
    answer: dict[str, Any] = {"results": found[:size], "timestamp": time.time()}
    if len(found) > size:
        answer["nextToken"] = _token(one.caller, thing_name, found[size - 1])
    return answer


class Messages:
    """Payloads of shadows as messages of the local broker, which holds the ready text of the event."""

    def encode(self, topic: str, payload: bytes, /) -> bytes:
        return rpc.dump({"binaryMessage": {"message": _text(payload), "context": {"topic": topic}}})

    def decode(self, message: bytes, /) -> bytes:
        """The payload, whether it was published as bytes or as JSON; nothing of what cannot be read."""
        try:
            event = json.loads(message)
            if "jsonMessage" in event:
                return rpc.dump(event["jsonMessage"].get("message"))
            return bytes(binascii.a2b_base64(event["binaryMessage"].get("message", "")))
        except (KeyError, ValueError, RecursionError):
            return b""


async def _ask(one: call.Call, verb: str, request: dict[str, Any], payload: bytes = b"") -> bytes:
    thing_name, name = _ref(request)
    try:
        return await _service(one).request(verb, thing_name, name, payload)
    except shadows.Rejected as rejected:
        raise _error(rejected, thing_name, name) from None


def _ref(request: dict[str, Any]) -> tuple[str, str]:
    """Thing and shadow name, the empty one for the classic shadow; checked before any policy is asked, as in the original."""
    found = request["thingName"], request.get("shadowName", "")
    fault = shadow.fault_of(*found)
    if fault:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot find the shadow: {fault}")
    return found


def _service(one: call.Call) -> ports.Shadows:
    if one.ports.shadows is None:
        raise rpc.OperationError("ServiceError", "cannot serve shadows: this nucleus has no local shadow service")
    return one.ports.shadows


def _error(rejected: shadows.Rejected, thing_name: str, name: str) -> rpc.OperationError:
    members = {"resourceType": "shadow", "resourceName": name or thing_name} if rejected.code == 404 else {}
    return rpc.OperationError(_SHAPES.get(rejected.code, "ServiceError"), rejected.message, **members)


def _text(payload: bytes) -> str:
    return binascii.b2a_base64(payload, newline=False).decode()


def _mark(caller: str, thing_name: str, name: str) -> bytes:
    return hashlib.sha256("\0".join((caller, thing_name, name)).encode()).digest()[:_MARK_BYTES]


def _token(caller: str, thing_name: str, name: str) -> str:
    return _text(_mark(caller, thing_name, name) + name.encode())


def _after(caller: str, thing_name: str, token: str) -> str:
    try:
        data = binascii.a2b_base64(token, strict_mode=True)
        name = data[_MARK_BYTES:].decode()
    except ValueError:
        name, data = "", b"?"
    if token and data[:_MARK_BYTES] != _mark(caller, thing_name, name):
        raise rpc.OperationError("InvalidArgumentsError", "nextToken is not one that a list of this thing has given")
    return name
