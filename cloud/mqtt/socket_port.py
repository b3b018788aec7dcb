"""`port.BrokerPort` over the embedded broker's Unix socket; reconnects by itself when the broker was restarted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from cloud.mqtt import client, port
from nucleus.wire import mqtt_packets

_RECEIVE_MAXIMUM = 1_000  # messages the service may hold without having done with them
_WAITING = 2_000  # the rest of the queue is for QoS 0, which is dropped when it is full
_SESSION_S = 604_800  # what devices say while the service is away
_PUBLISH_S = 10.0
_BACKOFF_S = (0.05, 2.0)


class SocketPort:
    """`run` keeps the connection until it is cancelled; the other methods may be called at any time."""

    def __init__(self, root: Path) -> None:
        self._path = root / port.SOCKET_NAME
        self._snapshot: port.Snapshot | None = None
        self._pushing = asyncio.Lock()
        self._client: client.Client | None = None
        self._connected = asyncio.Event()
        self._waiting: asyncio.Queue[port.Inbound] = asyncio.Queue(_WAITING)

    async def run(self) -> None:
        """Connects, again and again."""
        delay_s = _BACKOFF_S[0]
        while True:
            try:
                await self._serve()
                delay_s = _BACKOFF_S[0]
            except (OSError, TimeoutError):
                delay_s = min(delay_s * 2, _BACKOFF_S[1])
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def publish(self, topic: str, payload: bytes, qos: int = 1, *, only: str = "") -> None:
        """See `port.BrokerPort`: tried again on a new connection until the deadline, so it may be delivered twice."""
        try:
            async with asyncio.timeout(_PUBLISH_S):
                while not await self._try_publish(topic, payload, qos, only):
                    pass
        except TimeoutError:
            raise port.BrokerUnavailableError(
                f"cannot publish to {topic}: no broker within {_PUBLISH_S:.0f} s"
            ) from None

    async def push(self, snapshot: port.Snapshot) -> None:
        """See `port.BrokerPort`; without a connection the snapshot is kept for the next one."""
        self._snapshot = snapshot
        async with self._pushing:
            if self._snapshot is snapshot and self._connected.is_set():
                await self._hand_over()

    async def kick(self, client_id: str) -> None:
        await self.publish(port.CONTROL_KICK, client_id.encode())

    @property
    def inbound(self) -> AsyncIterator[port.Inbound]:
        return _Inbox(self._waiting)

    async def connected(self) -> None:
        """Waits until the broker can be used."""
        await self._connected.wait()

    async def _serve(self) -> None:
        to = client.Client(
            port.SERVICE_CLIENT_ID,
            lambda packet: self._take(to, packet),
            receive_maximum=_RECEIVE_MAXIMUM,
            expiry_s=_SESSION_S,
        )
        try:
            await to.connect(self._path)
            await to.subscribe(port.SERVICE_FILTERS)
            self._client = to
            await self._hand_over()
            self._connected.set()
            await to.lost()
        finally:
            self._connected.clear()
            self._client = None
            to.close()

    async def _hand_over(self) -> None:
        if self._snapshot is None or self._client is None:
            return
        try:
            await self._client.publish(port.CONTROL_PRINCIPALS, msgspec.json.encode(self._snapshot), 1)
        except ConnectionError:
            return  # the next connection begins with it

    async def _try_publish(self, topic: str, payload: bytes, qos: int, only: str) -> bool:
        await self._connected.wait()
        if self._client is None:
            return False
        try:
            await self._client.publish(topic, payload, qos, only=only)
        except ConnectionError:
            await asyncio.sleep(_BACKOFF_S[0])
            return False
        return True

    def _take(self, to: client.Client, packet: mqtt_packets.Publish) -> None:
        said = dict(packet.properties.user)  # of equal names the last wins: the broker's own
        message = port.Inbound(
            packet.topic,
            packet.payload,
            said.get(port.CLIENT_ID_PROPERTY, ""),
            said.get(port.PRINCIPAL_PROPERTY, ""),
            (lambda: to.acknowledge(packet.packet_id)) if packet.qos else _nothing,
        )
        if packet.qos or self._waiting.qsize() < _WAITING - _RECEIVE_MAXIMUM:
            self._waiting.put_nowait(message)


class _Inbox:
    """What waits, without an end; several may share the queue."""

    def __init__(self, waiting: asyncio.Queue[port.Inbound]) -> None:
        self._waiting = waiting

    def __aiter__(self) -> _Inbox:
        return self

    async def __anext__(self) -> port.Inbound:
        return await self._waiting.get()


def _nothing() -> None:
    """QoS 0 is not acknowledged."""
