"""How the daemon ends: the exit code somebody asked for, and the signals that ask for 0."""

from __future__ import annotations

import asyncio
import signal

from nucleus.host import reexec

RESTART = 100  # the loader starts it again; without a loader the same process begins anew
HAND_OVER = -2  # as RESTART, but components and their connections are handed over to the new process image
AGAIN = -1  # the same process begins anew: the device has been given an identity


class Leaving:
    """The first who asks sets the code; `marram nucleus run` and the loader act on it (100 restart, 101 reboot)."""

    def __init__(self) -> None:
        self.code = 0
        self._asked = asyncio.Event()

    def ask(self, code: int = 0) -> None:
        if not self._asked.is_set():
            self.code = code
            self._asked.set()

    def stop(self) -> None:
        """Ends for good, also when a hand-over has been asked for and is not done yet."""
        self.code = 0
        self._asked.set()

    def on_signals(self) -> None:
        """SIGTERM and SIGINT end the daemon that runs in this loop."""
        for number in reexec.SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, reexec.SIGNALS)  # the image before this one blocked them

    async def asked(self) -> int:
        """Waits until somebody asks: no deadline, this is how long the daemon runs."""
        await self._asked.wait()
        return self.code
