"""`marram listen TOPIC --certificate DIR`: hears a topic with an operator's certificate (MQTT 5 over mutual TLS)."""

from __future__ import annotations

import json
import os
import queue
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from awscrt import mqtt5
from awsiot import mqtt5_client_builder
from msgspec import Struct

from nucleus.cli import exits

_HELD = 10_000  # messages between two looks; newer ones are dropped above it
_CONNECT_S = 10


class Message(Struct, frozen=True):
    """`received_at` is epoch seconds."""

    topic: str
    payload: bytes
    received_at: float


class Listener:
    """A connection that keeps what it hears in a bounded queue. Use it as a context manager through `connect`."""

    def __init__(self, directory: Path, host: str, port: int, client_id: str) -> None:
        self.heard: queue.Queue[Message] = queue.Queue(_HELD)
        self._connected: futures.Future[None] = futures.Future()
        self._client = mqtt5_client_builder.mtls_from_path(
            endpoint=host,
            port=port,
            client_id=client_id,
            cert_filepath=str(directory / "operator.pem"),
            pri_key_filepath=str(directory / "operator.key"),
            ca_filepath=str(directory / "ca.pem"),
            on_publish_received=self._receive,
            on_lifecycle_connection_success=self._succeed,
            on_lifecycle_connection_failure=self._fail,
        )

    def start(self) -> None:
        """Connects. Raises Failure with the broker's reason."""
        self._client.start()
        try:
            self._connected.result(_CONNECT_S)
        except futures.TimeoutError:
            raise exits.Failure(f"cannot connect: no answer within {_CONNECT_S} s", exits.TIMED_OUT) from None

    def subscribe(self, topic: str) -> None:
        """Raises Failure if the certificate's policy does not allow the topic filter."""
        wanted = mqtt5.SubscribePacket([mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE)])
        answer = self._client.subscribe(wanted).result(_CONNECT_S)
        if int(answer.reason_codes[0]) >= 0x80:
            what = f"cannot listen to {topic}: the certificate's policy does not allow it"
            raise exits.Failure(what, exits.NOT_AUTHORISED)

    def stop(self) -> None:
        self._client.stop()

    def _receive(self, data: Any) -> None:
        packet = data.publish_packet
        try:
            self.heard.put_nowait(Message(packet.topic, packet.payload or b"", time.time()))
        except queue.Full:
            return  # somebody who watches wants the stream to go on, not all of it

    def _succeed(self, _: Any) -> None:
        if not self._connected.done():
            self._connected.set_result(None)

    def _fail(self, data: Any) -> None:
        if not self._connected.done():
            refused = data.connack_packet is not None
            why = f"the broker refused the certificate ({data.connack_packet.reason_code!r})" if refused else ""
            code = exits.NOT_AUTHORISED if refused else exits.ERROR
            self._connected.set_exception(exits.Failure(f"cannot connect: {why or data.exception}", code))


@contextmanager
def connect(directory: Path, host: str = "", port: int = 0) -> Iterator[Listener]:
    """A connected listener with the certificate in `directory`; host and port default to those written there."""
    try:
        known = json.loads((directory / "endpoint.json").read_bytes())
    except (OSError, ValueError) as error:
        cure = "make one with marram operator certificate"
        raise exits.Failure(f"cannot use the certificate in {directory}: {error}; {cure}") from None
    listener = Listener(directory, host or known["host"], port or known["port"], f"{known['name']}-{os.getpid()}")
    try:
        listener.start()
        yield listener
    finally:
        listener.stop()


@click.command()
@click.argument("topic")
@click.option(
    "--certificate",
    "directory",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder made by marram operator certificate.",
)
@click.option("--host", default="", help="Broker's host instead of the one written beside the certificate.")
@click.option("--port", default=0, help="Broker's port instead of the one written beside the certificate.")
@click.option("-n", "--count", default=0, help="Stop after so many messages.")
@click.option("--timeout", "timeout_s", default=0.0, help="Stop after so many seconds; exit code 4 if COUNT is short.")
@click.option("-o", "--output", "output_", type=click.Choice(["text", "json"]), default="text", help="One a line.")
def listen(topic: str, directory: Path, host: str, port: int, count: int, timeout_s: float, output_: str) -> int:
    """Prints the messages of TOPIC (a filter with + and #) as they arrive."""
    deadline = time.monotonic() + timeout_s if timeout_s else None
    left = count
    with connect(directory, host, port) as listener:
        listener.subscribe(topic)
        while not count or left:
            message = _next(listener, deadline)
            if message is None:
                return exits.TIMED_OUT if count else exits.OK
            left -= 1
            click.echo(_as_json(message) if output_ == "json" else _as_text(message))
    return exits.OK


def _next(listener: Listener, deadline: float | None) -> Message | None:
    while True:
        wait_s = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
        try:
            return listener.heard.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            if deadline is not None and time.monotonic() >= deadline:
                return None


def _as_text(message: Message) -> str:
    return f"{message.topic} {message.payload.decode(errors='backslashreplace')}"


def _as_json(message: Message) -> str:
    try:
        payload = json.loads(message.payload)
    except ValueError:
        payload = message.payload.decode(errors="backslashreplace")
    return json.dumps({"topic": message.topic, "receivedAt": message.received_at, "payload": payload})
