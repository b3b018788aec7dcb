"""Tells systemd how the daemon is (sd_notify): READY=1, WATCHDOG=1, STOPPING=1; without systemd nothing happens.

The messages are datagrams to the socket named by NOTIFY_SOCKET. Components never see that variable: their environment is
made from nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any


class Notifier:
    """`interval_s` is how often the watchdog wants to hear, half of what it allows; 0 means no watchdog."""

    def __init__(self, address: str, interval_s: float) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.interval_s = interval_s

    @staticmethod
    def from_environment(variables: Mapping[str, str]) -> Notifier:
        """WATCHDOG_PID is not looked at: it names the loader, whose child we are."""
        allowed = variables.get("WATCHDOG_USEC", "")
        interval_s = int(allowed) / 2_000_000 if allowed.isdecimal() else 0.0
        return Notifier(variables.get("NOTIFY_SOCKET", ""), interval_s)

    def tell(self, state: str) -> None:
        """Sends e.g. `READY=1`. A manager that does not listen is no reason to stop working."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), self._address)

    def ending(self, code: int) -> None:
        """STOPPING=1 only if the daemon ends for good: systemd would stop the loader, which is to start it again."""
        self.tell("WATCHDOG=1" if code else "STOPPING=1")

    def reloading(self) -> None:
        """Before everything is handed over to another image of the program; READY=1 ends it."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    async def watch_over(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` (the deployer's loop) and feeds the watchdog for as long as it and the event loop live."""
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self._feed())
            try:
                await work
            finally:
                feeding.cancel()

    async def _feed(self) -> None:
        while self._address and self.interval_s:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.interval_s)
