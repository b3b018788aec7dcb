"""Clients of other makers against the broker: awscrt's MQTT 5 and paho's MQTT 3.1.1, over mutual TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol

import paho.mqtt.client as paho
from awscrt import io, mqtt5

from tests.cloud import certificates

WAIT_S = 20.0


class Broker(Protocol):
    """What a client needs to know of the broker: `harness.Bench`."""

    number: int
    authority: certificates.Authority

    def raw_context(self, pair: certificates.Pair) -> ssl.SSLContext: ...


async def until(check: Callable[[], Any], what: str) -> Any:
    """Waits until the check is true; other threads change what it sees, so it is asked again and again."""
    deadline = time.monotonic() + WAIT_S
    while not (value := check()):
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.01)
    return value


class Crt:
    """awscrt's MQTT 5 client as the device uses it, with what it heard."""

    def __init__(
        self, bench: Broker, pair: certificates.Pair, client_id: str, *, expiry_s: int = 0,
        will: mqtt5.PublishPacket | None = None,
    ) -> None:  # fmt: skip
        self.received: list[mqtt5.PublishPacket] = []
        self.connacks: list[mqtt5.ConnackPacket] = []
        self.failures: list[mqtt5.LifecycleConnectFailureData] = []
        self.disconnects: list[mqtt5.DisconnectPacket | None] = []
        self.attempts: list[object] = []
        options = io.TlsContextOptions.create_client_with_mtls_from_path(str(pair.certificate_path), str(pair.key_path))
        options.override_default_trust_store_from_path(None, str(bench.authority.pair.certificate_path))
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name="localhost",
                port=bench.number,
                tls_ctx=io.ClientTlsContext(options),
                connect_options=mqtt5.ConnectPacket(
                    client_id=client_id,
                    keep_alive_interval_sec=60,
                    username="?SDK=Test",
                    session_expiry_interval_sec=expiry_s,
                    will=will,
                ),
                session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS
                if expiry_s
                else mqtt5.ClientSessionBehaviorType.CLEAN,
                min_reconnect_delay_ms=100,
                max_reconnect_delay_ms=300,
                on_publish_callback_fn=lambda data: self.received.append(data.publish_packet),
                on_lifecycle_event_attempting_connect_fn=self.attempts.append,
                on_lifecycle_event_connection_success_fn=lambda data: self.connacks.append(data.connack_packet),
                on_lifecycle_event_connection_failure_fn=self.failures.append,
                on_lifecycle_event_disconnection_fn=lambda data: self.disconnects.append(data.disconnect_packet),
                on_lifecycle_event_stopped_fn=self._note_stop,
            )
        )
        self.stopped = False

    def _note_stop(self, _data: object) -> None:
        self.stopped = True

    async def connect(self) -> mqtt5.ConnackPacket:
        seen = len(self.connacks)
        self._client.start()
        await until(lambda: len(self.connacks) > seen, f"connection (failures: {self.failures})")
        return self.connacks[-1]

    def start(self) -> None:
        self._client.start()

    async def refused(self) -> mqtt5.LifecycleConnectFailureData:
        """Connects and waits for the refusal."""
        self._client.start()
        await until(lambda: self.failures, "refusal")
        self.stop()
        return self.failures[0]

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **fields: Any) -> Any:
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS(qos), **fields)
        done = await asyncio.wrap_future(self._client.publish(packet))
        return done.puback.reason_code if done.puback is not None else None

    async def subscribe(self, *filters: str, qos: int = 1) -> list[Any]:
        subscriptions = [mqtt5.Subscription(each, mqtt5.QoS(qos)) for each in filters]
        packet = mqtt5.SubscribePacket(subscriptions=subscriptions)
        return list((await asyncio.wrap_future(self._client.subscribe(packet))).reason_codes)

    async def heard(self, count: int) -> list[tuple[str, bytes]]:
        await until(lambda: len(self.received) >= count, f"{count} messages, got {len(self.received)}")
        return [(each.topic, bytes(each.payload or b"")) for each in self.received]

    async def leave(self) -> None:
        """Disconnects and waits for it."""
        self.stop()
        await until(lambda: self.stopped, "stop of the client")

    def stop(self) -> None:
        self.stopped = False
        self._client.stop(mqtt5.DisconnectPacket())


class Paho:
    """paho's client with MQTT 3.1.1, with what it heard."""

    def __init__(self, bench: Broker, pair: certificates.Pair, client_id: str, *, clean: bool = True) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self.connected: list[int] = []
        self.disconnected: list[Any] = []
        self.granted: list[list[int]] = []
        self._bench = bench
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean, protocol=paho.MQTTv311
        )
        self._client.tls_set_context(bench.raw_context(pair))
        self._client.on_message = lambda _c, _u, message: self.received.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.on_connect = lambda _c, _u, _f, reason, _p: self.connected.append(reason.value)
        self._client.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnected.append(reason)
        self._client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.append(
            [each.value for each in reasons]
        )

    def will(self, topic: str, payload: bytes) -> None:
        self._client.will_set(topic, payload, 1)

    async def connect(self) -> int:
        await asyncio.to_thread(self._client.connect, "localhost", self._bench.number, 30)
        self._client.loop_start()
        await until(lambda: self.connected, "CONNACK")
        return self.connected[-1]

    def publish(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False) -> paho.MQTTMessageInfo:
        return self._client.publish(topic, payload, qos, retain)

    async def subscribe(self, topic_filter: str) -> list[int]:
        seen = len(self.granted)
        self._client.subscribe(topic_filter, 1)
        await until(lambda: len(self.granted) > seen, "SUBACK")
        return self.granted[-1]

    async def heard(self, count: int) -> list[tuple[str, bytes, bool]]:
        await until(lambda: len(self.received) >= count, f"{count} messages, got {self.received}")
        return self.received

    def cut(self) -> None:
        """Drops the connection without a word."""
        socket = self._client.socket()
        if socket is not None:
            socket.close()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
