"""The way of components to the cloud's broker: messages both ways, and the connection's status (spec/ipc.md 3, 3.3)."""

from __future__ import annotations

import binascii
from typing import Any

from nucleus.core import errors, topics
from nucleus.ipc import call, ports
from nucleus.wire import rpc

_TOPIC_BYTES = 256  # AWS IoT quotas: topic size, without the prefix of a basic ingest rule
_TOPIC_SLASHES = 7
_RESERVED = "$aws/"  # these may be longer
_RESERVED_BYTES = 512


async def publish(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Answers when the message is in the spool, which may be long before it reaches the broker."""
    topic = request["topicName"]
    _check(topic, topics.is_topic(topic))
    if "payload" not in request:  # as the original, although the model does not require it
        raise rpc.OperationError("InvalidArgumentsError", f"cannot publish to {topic!r}: payload is missing")
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
    except errors.NucleusError as error:
        context = {"reasonCode": error.code, "reasonString": error.detail}
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
    reserved = topic.startswith(_RESERVED)
    if len(topic.encode()) > (_RESERVED_BYTES if reserved else _TOPIC_BYTES):
        raise rpc.OperationError("InvalidArgumentsError", f"cannot use {topic[:80]!r}…: it is too long")
    if not reserved and topic.count("/") > _TOPIC_SLASHES:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot use {topic!r}: more than {_TOPIC_SLASHES} slashes")
