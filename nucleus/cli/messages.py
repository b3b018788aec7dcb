"""`marram pubsub pub|sub` and `marram iotcore pub|sub`: messages through the nucleus, with greengrass-cli's options.

Both speak as the device's user, who may use every topic (spec/nucleus.md 8.1).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from nucleus.cli import daemon, exits
from nucleus.ipc import client

Printed = tuple[str, bytes | Any]  # topic, and bytes or a JSON value


def _topic(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-t", "--topic", required=True, help="The topic; for sub a filter, with wildcards.")(command)


def _message(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-m", "--message", required=True, help="The message; what is JSON is sent as JSON.")(command)


def _quality(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-q", "--qos", type=click.IntRange(0, 1), default=0, show_default=True)(command)


def _until(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--timeout", "timeout_s", default=0.0, help="Stop after so many seconds; exit code 4.")(
        command
    )
    command = click.option("-n", "--count", default=0, help="Stop after so many messages.")(command)
    return click.option("-o", "--output", "output_", type=click.Choice(["text", "json"]), default="text")(command)


@click.command("pub")
@_topic
@_message
@daemon.option
def local_publish(topic: str, message: str, root: Path) -> None:
    """Publishes to the components of this device that subscribe to TOPIC now."""
    with daemon.connect(root) as ipc:
        ipc.publish(topic, _value(message))


@click.command("sub")
@_topic
@_until
@daemon.option
def local_subscribe(topic: str, output_: str, count: int, timeout_s: float, root: Path) -> None:
    """Prints what the components of this device publish, one message a line."""
    with daemon.connect(root) as ipc:
        events = ipc.subscribe("SubscribeToTopic", {"topic": topic, "receiveMode": "RECEIVE_ALL_MESSAGES"})
        click.echo(f"listening to {topic}", err=True)
        _print(_local(events, timeout_s), count, output_)


@click.command("pub")
@_topic
@_message
@_quality
@daemon.option
def cloud_publish(topic: str, message: str, qos: int, root: Path) -> None:
    """Publishes to the cloud; with QoS 1 it waits in the nucleus's spool while the device is offline."""
    with daemon.connect(root) as ipc:
        ipc.publish_to_iot_core(topic, message.encode(), qos)


@click.command("sub")
@_topic
@_quality
@_until
@daemon.option
def cloud_subscribe(topic: str, qos: int, output_: str, count: int, timeout_s: float, root: Path) -> None:
    """Prints the messages of the cloud, one a line."""
    with daemon.connect(root) as ipc:
        events = ipc.subscribe("SubscribeToIoTCore", {"topicName": topic, "qos": str(qos)})
        click.echo(f"listening to {topic}", err=True)
        _print(_from_cloud(events, timeout_s), count, output_)


def _value(message: str) -> Any:
    try:
        return json.loads(message)
    except ValueError:
        return message.encode()


def _events(subscription: client.Subscription, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Events until the nucleus ends the subscription. Raises Failure TIMED_OUT when the time is over (0: never)."""
    until = time.monotonic() + timeout_s if timeout_s else None
    while True:
        left_s = None if until is None else max(0.0, until - time.monotonic())
        event = subscription.next_event(left_s)
        if event is None and subscription.ended:
            return
        if event is None:
            raise exits.Failure(f"no (further) message within {timeout_s:g} s", exits.TIMED_OUT)
        yield event


def _local(subscription: client.Subscription, timeout_s: float) -> Iterator[Printed]:
    for event in _events(subscription, timeout_s):
        ((kind, body),) = event.items()
        content = body.get("message")
        yield body["context"]["topic"], base64.b64decode(content) if kind == "binaryMessage" else content


def _from_cloud(subscription: client.Subscription, timeout_s: float) -> Iterator[Printed]:
    for event in _events(subscription, timeout_s):
        yield event["message"]["topicName"], base64.b64decode(event["message"].get("payload", ""))


def _print(messages: Iterator[Printed], count: int, output_: str) -> None:
    for number, (topic, content) in enumerate(messages, 1):
        text = content.decode("utf-8", "backslashreplace") if isinstance(content, bytes) else json.dumps(content)
        click.echo(
            json.dumps({"topic": topic, "message": _readable(content)}) if output_ == "json" else f"{topic} {text}"
        )
        if number == count:
            return


def _readable(content: bytes | Any) -> Any:
    """A JSON value or text as it is; other bytes as `{"base64": …}`."""
    if not isinstance(content, bytes):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
