"""Stop signals as an Event that threads may wait for (standard library only)."""

from __future__ import annotations

import queue
import signal
import threading


def stop_signals() -> threading.Event:
    """Set at SIGTERM or SIGINT, by a thread: a handler that sets it can wait for ever for the lock of the `wait` it is in."""
    stopped = threading.Event()
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()  # may be put to within a handler
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: heard.put(got))

    def listen() -> None:
        heard.get()
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    return stopped
