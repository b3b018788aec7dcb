"""PublishToTopic and SubscribeToTopic: messages between the components of one device (spec/ipc.md 3.3)."""

from __future__ import annotations

from typing import Any

from nucleus.ipc import call
from nucleus.wire import rpc

TOPIC_CHARACTERS = 4096  # ours, so that a filter cannot grow the trie by millions of levels


def publish(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Delivers to whoever subscribes now; nobody is fine. The event's text is made once for all of them."""
    topic = request["topic"]
    _check(topic)
    if any(wildcard in topic for wildcard in "+#*"):
        raise rpc.OperationError("InvalidArgumentsError", f"cannot publish to {topic!r}: it has a wildcard")
    one.ports.broker.publish(topic, event(topic, request["publishMessage"]), one.caller)
    return {}


def subscribe(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """Delivers from now on, after the answer."""
    topic = request["topic"]
    _check(topic)
    mode = request.get("receiveMode", "")
    one.on_end(one.ports.broker.subscribe(topic, mode, one.caller, lambda _, message: one.emit_encoded(message)))
    return {}


def event(topic: str, message: dict[str, Any]) -> bytes:
    """The JSON text of a SubscriptionResponseMessage; `message` is a checked PublishMessage (its blob in base64)."""
    ((kind, body),) = message.items()
    members = {"message": body["message"]} if "message" in body else {}
    return rpc.dump({kind: members | {"context": {"topic": topic}}})


def _check(topic: str) -> None:
    if not 0 < len(topic) <= TOPIC_CHARACTERS:
        what = f"cannot use the topic {topic[:40]!r}: it must have 1 to {TOPIC_CHARACTERS} characters"
        raise rpc.OperationError("InvalidArgumentsError", what)
