"""Handshakes take turns: one step costs about a millisecond, and connected devices shall not wait for a storm of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol


class Shaking(Protocol):
    """A connection in its handshake."""

    def shake_hands(self, data: bytes) -> None:
        """Makes one step with what the client sent."""


class Pacer:
    """Makes a few handshake steps per turn of the loop, first come first served."""

    def __init__(self, steps_per_turn: int) -> None:
        self._steps = steps_per_turn
        self._waiting: deque[tuple[Shaking, bytes]] = deque()

    def add(self, connection: Shaking, data: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        self._waiting.append((connection, data))

    def _turn(self) -> None:
        turn = [self._waiting.popleft() for _ in range(min(self._steps, len(self._waiting)))]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        for connection, data in turn:
            connection.shake_hands(data)
