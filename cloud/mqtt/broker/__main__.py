"""`python -m cloud.mqtt.broker --root R --host H --port P`: the broker's process.

Prints one line of JSON, {"port": N}, when it listens; events go to stderr. With `--supervised` it ends when its standard
input does, which is when its parent is gone, however that died.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from cloud.mqtt.broker import server


def main() -> None:
    arguments = _arguments()
    settings = server.Settings(
        root=arguments.root.resolve(), host=arguments.host, port=arguments.port, synchronous=arguments.synchronous
    )
    try:
        asyncio.run(_run(settings, supervised=arguments.supervised))
    except* (OSError, sqlite3.Error) as group:
        why = "; ".join(str(error) for error in group.exceptions)
        sys.exit(f"cannot run the broker on {settings.host}:{settings.port} with {settings.root}: {why}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cloud.mqtt.broker", description="The embedded MQTT broker.")
    parser.add_argument("--root", type=Path, required=True, help="folder with server.pem, server.key, ca.pem")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8883, help="0 for a free one")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL", help="SQLite's durability")
    parser.add_argument("--supervised", action="store_true", help="end when standard input does")
    return parser.parse_args()


async def _run(settings: server.Settings, *, supervised: bool) -> None:
    loop = asyncio.get_running_loop()
    broker = server.Broker(settings, _Reporter().report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, broker.stop)
    if supervised:
        loop.add_reader(0, _stop_at_end_of_input, broker)
    await broker.run(_tell_port)


def _stop_at_end_of_input(broker: server.Broker) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        broker.stop()


def _tell_port(number: int) -> None:
    print(json.dumps({"port": number}), flush=True)


class _Reporter:
    """Writes events to stderr; when a client causes a flood of them, only the first ones of each second."""

    _PER_SECOND = 50

    def __init__(self) -> None:
        self._second = 0
        self._count = 0

    def report(self, text: str) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._count > self._PER_SECOND:
                print(f"{self._count - self._PER_SECOND} more events were left out", file=sys.stderr)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= self._PER_SECOND:
            print(text[:500], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
