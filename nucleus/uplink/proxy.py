"""The connection to the cloud as components have it: their messages are spooled as the settings say, their filters bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nucleus.core import errors
from nucleus.uplink import mqtt

MOST_FILTERS = 50  # AWS IoT's quota of one connection, and our broker's; the original opens further connections


class Proxy:
    """Shaped as ipc.ports.Uplink."""

    def __init__(self, connection: mqtt.Connection) -> None:
        self._connection = connection

    @property
    def connected(self) -> bool:
        return self._connection.connected

    def on_status(self, callback: Callable[[bool], None], /) -> Callable[[], None]:
        return self._connection.on_status(callback)

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        await self._connection.publish_kept(topic, payload, qos, **properties)

    async def subscribe(self, filter_: str, qos: int, deliver: mqtt.Deliver, /) -> Callable[[], None]:
        """As of the connection. Raises NucleusError THROTTLING_ERROR when it has as many filters as the broker takes."""
        if self._connection.filters_with(filter_) > MOST_FILTERS:
            raise errors.NucleusError(
                "THROTTLING_ERROR",
                f"cannot subscribe to {filter_}: the device has {MOST_FILTERS} subscriptions, the most of one connection; "
                "subscribe with a wider filter, which counts once",
            )
        return await self._connection.subscribe(filter_, qos, deliver)
