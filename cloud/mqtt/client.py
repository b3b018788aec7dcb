"""A small MQTT 5 client on our own codec, for the service's side of the broker's Unix socket.

One connection: it does not reconnect (`socket_port` does). Publishes with QoS 1 are bounded by what the broker announces;
what comes in is handed to `deliver` and acknowledged by `acknowledge`, in whatever order the service is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from cloud.mqtt import addresses, port
from nucleus.wire import mqtt, mqtt_packets, mqtt_properties

_CONNECT_S = 5.0
_MAXIMUM_BYTES = 67_108_864


class Client(asyncio.Protocol):
    """`await connect`, then the others; `await lost` until the connection is gone. Raises ConnectionError when it is."""

    def __init__(
        self, client_id: str, deliver: Callable[[mqtt_packets.Publish], None], *, receive_maximum: int, expiry_s: int
    ) -> None:
        self._client_id = client_id
        self._deliver = deliver
        self._receive_maximum = receive_maximum
        self._expiry_s = expiry_s
        self._decoder = mqtt.Decoder(version=mqtt_packets.V5, maximum_bytes=_MAXIMUM_BYTES)
        self._transport: asyncio.Transport | None = None
        self._answers: dict[int, asyncio.Future[mqtt_packets.Packet]] = {}
        self._packet_id = 0
        self._window = asyncio.Semaphore(1)
        self._lost = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    async def connect(self, path: Path, *, clean_start: bool = False) -> bool:
        """True if the broker continued our session."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_S):
            with addresses.short(path) as name:
                await loop.create_unix_connection(lambda: self, name)
            properties = mqtt_properties.Properties(
                session_expiry_s=self._expiry_s, receive_maximum=self._receive_maximum
            )
            connect = mqtt_packets.Connect(self._client_id, clean_start=clean_start, properties=properties)
            answer = await self._ask(0, connect)
        if not isinstance(answer, mqtt_packets.Connack) or answer.reason:
            self.close()
            raise ConnectionError(f"cannot connect to {path}: the broker refused ({answer})")
        self._window = asyncio.Semaphore(answer.properties.receive_maximum or 65_535)
        return answer.session_present

    async def publish(self, topic: str, payload: bytes, qos: int, *, only: str = "") -> None:
        """With QoS 1 returns at the PUBACK; raises ConnectionError if it says no. `only`: see `port.BrokerPort`."""
        user = ((port.ONLY_PROPERTY, only),) if only else ()
        properties = mqtt_properties.Properties(user=user)
        await self._drained.wait()
        if qos == 0:
            self._send(mqtt_packets.Publish(topic, payload, properties=properties))
            return
        async with self._window:
            packet_id = self._next_packet_id()
            packet = mqtt_packets.Publish(topic, payload, 1, packet_id=packet_id, properties=properties)
            answer = await self._ask(packet_id, packet)
        if isinstance(answer, mqtt_packets.Puback) and answer.reason >= 0x80:
            raise ConnectionError(f"cannot publish to {topic}: the broker answered 0x{answer.reason:02x}")

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribes with QoS 1; raises ConnectionError if one is refused."""
        packet_id = self._next_packet_id()
        requests = tuple(mqtt_packets.Request(each, 1, retain_handling=2) for each in filters)
        answer = await self._ask(packet_id, mqtt_packets.Subscribe(packet_id, requests))
        if not isinstance(answer, mqtt_packets.Suback) or any(reason >= 0x80 for reason in answer.reasons):
            raise ConnectionError(f"cannot subscribe to {', '.join(filters)}: the broker answered {answer}")

    def acknowledge(self, packet_id: int) -> None:
        """Sends the PUBACK; silently nothing when the connection is gone, for the broker will deliver again."""
        if self._transport is not None:
            self._transport.write(mqtt.puback(packet_id, 0, mqtt_packets.V5))

    async def lost(self) -> None:
        await self._lost.wait()

    def close(self) -> None:
        """Says goodbye; the session stays for as long as it was asked for."""
        if self._transport is not None:
            self._transport.write(mqtt.encode(mqtt_packets.Disconnect(), mqtt_packets.V5))
            self._transport.close()

    # ---- called by asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for packet in self._decoder.receive(data):
                self._receive(packet)
        except mqtt_properties.MQTTError as error:
            self._fail(f"the broker broke the protocol: {error.detail}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection to the broker is gone ({error or 'closed'})")

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def _receive(self, packet: mqtt_packets.Packet) -> None:
        match packet:
            case mqtt_packets.Publish():
                self._deliver(packet)
            case mqtt_packets.Puback() | mqtt_packets.Suback():
                self._settle(packet.packet_id, packet)
            case mqtt_packets.Connack():
                self._settle(0, packet)
            case mqtt_packets.Disconnect():
                self._fail(f"the broker said goodbye with 0x{packet.reason:02x}")
            case _:
                pass

    async def _ask(self, key: int, packet: mqtt_packets.Packet) -> mqtt_packets.Packet:
        """Sends and waits for the answer; the caller has the deadline."""
        answer: asyncio.Future[mqtt_packets.Packet] = asyncio.get_running_loop().create_future()
        self._answers[key] = answer
        try:
            self._send(packet)
            return await answer
        finally:
            self._answers.pop(key, None)

    def _settle(self, key: int, packet: mqtt_packets.Packet) -> None:
        answer = self._answers.get(key)
        if answer is not None and not answer.done():
            answer.set_result(packet)

    def _send(self, packet: mqtt_packets.Packet) -> None:
        if self._transport is None:
            raise ConnectionError("cannot send to the broker: the connection is gone")
        self._transport.write(mqtt.encode(packet, mqtt_packets.V5))

    def _fail(self, why: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._transport = None
        self._drained.set()
        self._lost.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError(why))

    def _next_packet_id(self) -> int:
        """The next identifier nothing waits for; the window keeps most of the 65,535 free."""
        self._packet_id = self._packet_id % 65_535 + 1
        while self._packet_id in self._answers:
            self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id
