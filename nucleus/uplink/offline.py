"""The uplink of a device without cloud settings: refuses, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nucleus.core import errors


class Offline:
    """Shaped as `uplink/mqtt.py` Connection."""

    connected = False

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        raise errors.NucleusError("NETWORK_ERROR", f"cannot publish to {topic}: this nucleus has no cloud settings")

    async def subscribe(self, filter_: str, qos: int, deliver: Any, /) -> Callable[[], None]:
        raise errors.NucleusError("NETWORK_ERROR", f"cannot subscribe to {filter_}: this nucleus has no cloud settings")

    def on_status(self, callback: Callable[[bool], None], /) -> Callable[[], None]:
        return lambda: None  # it never changes
