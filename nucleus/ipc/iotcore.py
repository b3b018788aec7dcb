"""The way of components to the cloud's broker: messages both ways, and the connection's status (spec/ipc.md 3, 3.3)."""

from __future__ import annotations

import binascii
from typing import Any

from nucleus.core import errors, topics
from nucleus.ipc import call, ports
from nucleus.wire import rpc

_TOPIC_BYTES = 256  # AWS IoT quotas: topic size, without _UNCOUNTED
_TOPIC_SLASHES = 7
_UNCOUNTED = ("$aws/rules/", "$share/")  # with the level behind: the rule of a basic ingest, the group of subscribers
_RESERVED = "$aws/"  # these may be longer
_RESERVED_BYTES = 512
_LONGEST_S = 2**32 - 1  # of an expiry interval


async def publish(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Answers when the message is in the spool, which may be long before it reaches the broker."""
    topic = request["topicName"]
    _check(topic, topics.is_topic(topic))
    if "payload" not in request:  # as the original, although the model does not require it
        raise rpc.OperationError("InvalidArgumentsError", f"cannot publish to {topic!r}: payload is missing")
    _check_fields(topic, request)
    extra = {name: value for name, value in request.items() if name not in ("topicName", "qos", "payload")}
    await one.ports.uplink.publish(topic, request["payload"], int(request["qos"]), **extra)
    return {}


async def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Answers after the SUBACK; a refused subscription is a ServiceError with the broker's reason."""
    filter_ = request["topicName"]
    _check(filter_, topics.is_filter(filter_))
    try:
        cancel = await one.ports.uplink.subscribe(
            filter_, int(request["qos"]), lambda message: one.emit(_event(message))
        )
    except errors.Refused as error:
        context = {"reasonCode": str(error.reason), "reasonString": error.words or error.detail}
        raise rpc.OperationError("ServiceError", error.detail, context=context) from error
    one.on_end(cancel)
    return {}


def subscribe_to_status(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """The connection's state now, right behind the answer, and every change. No policy guards it (spec/ipc.md 3)."""

    def tell(connected: bool) -> None:
        one.emit({"connectionStatusEvent": {"status": "CONNECTED" if connected else "DISCONNECTED"}})

    one.on_end(one.ports.uplink.on_status(tell))
    if not one.resumed:  # the image before this one has told it
        tell(one.ports.uplink.connected)
    return {}


def _check_fields(topic: str, request: dict[str, Any]) -> None:
    """Refuses the MQTT 5 fields of which no packet can be made, before the message is in the spool."""
    response, interval = request.get("responseTopic"), request.get("messageExpiryIntervalSeconds", 0)
    if response is not None and not topics.is_topic(response):
        raise rpc.OperationError("InvalidArgumentsError", f"cannot publish to {topic!r}: responseTopic is no topic")
    if not 0 <= interval <= _LONGEST_S:
        what = f"messageExpiryIntervalSeconds must be between 0 and {_LONGEST_S}, not {interval}"
        raise rpc.OperationError("InvalidArgumentsError", f"cannot publish to {topic!r}: {what}")
    texts = [request.get("contentType", "")]
    texts += [text for one in request.get("userProperties", ()) for text in one.values()]
    if not all(map(_is_sendable, texts)):
        what = f"cannot publish to {topic!r}: a property is longer than MQTT allows, or no text"
        raise rpc.OperationError("InvalidArgumentsError", what)


def _is_sendable(text: str) -> bool:
    try:
        return len(text.encode()) <= topics.LIMIT_BYTES
    except UnicodeEncodeError:
        return False


def _event(message: ports.IncomingMessage) -> dict[str, Any]:
    """An IoTCoreMessage."""
    members: dict[str, Any] = {"topicName": message.topic, "payload": message.payload, "retain": message.retain}
    members |= message.properties
    for name, value in members.items():
        if isinstance(value, bytes):
            members[name] = binascii.b2a_base64(value, newline=False).decode()
    return {"message": members}


def _check(topic: str, is_valid: bool) -> None:
    """Refuses what the cloud's broker would answer by closing the connection of the whole device."""
    if not is_valid:
        what = f"cannot use {topic[:80]!r}: it is empty or its wildcards are not where MQTT wants them"
        raise rpc.OperationError("InvalidArgumentsError", what)
    prefix = next((one for one in _UNCOUNTED if topic.startswith(one)), "")
    counted = topic.removeprefix(prefix).partition("/")[2] if prefix else topic
    if not counted:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot use {topic!r}: nothing follows its prefix")
    reserved = counted.startswith(_RESERVED)
    most = _RESERVED_BYTES if reserved else _TOPIC_BYTES
    if len(counted.encode()) > most:
        what = f"cannot use {topic[:80]!r}…: it has more than {most} bytes"
        raise rpc.OperationError("InvalidArgumentsError", what)
    if not reserved and counted.count("/") > _TOPIC_SLASHES:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot use {topic!r}: more than {_TOPIC_SLASHES} slashes")
