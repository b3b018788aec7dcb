"""The spool on disk in a process that dies: `python -m tools.crash.spool FOLDER [--publish N] [--send] [--kill-at K]`.

Publishes N messages as components do, some at once, and prints `kept NAME` when a publish is acknowledged; with `--send` a
broker takes what is there and `sent NAME` is printed before its PUBACK. Dies by SIGKILL at the K-th statement on the database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from nucleus.core import mqtt_settings
from nucleus.host import logs
from nucleus.store import spool as store
from nucleus.uplink import spool

AT_ONCE = 4


class Store(store.SpoolStore):
    """Counts the statements; the one that says BEGIN, each change and COMMIT are moments to die at."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        super().__init__(folder)
        self._left = kill_at

    def open(self) -> tuple[store.Totals, str]:
        found = super().open()
        self._database().set_trace_callback(self._seen)
        return found

    def _seen(self, _statement: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def say(word: str, name: str) -> None:
    os.write(1, f"{word} {name}\n".encode())


async def run(folder: Path, count: int, send: bool, kill_at: int) -> None:
    kept = spool.Spool(logs.Log("crash", directory=folder), store=Store(folder / "spool", kill_at))
    kept.configure(mqtt_settings.Settings(disk=True))
    over = asyncio.Event()

    async def publish(name: str) -> None:
        await kept.keep(spool.Message(topic=name, payload=name.encode() * 100, qos=1))
        say("kept", name)

    async def take(message: spool.Message) -> int:
        say("sent", message.topic)
        if len(kept) == 1:
            over.set()
        return 0

    async with asyncio.TaskGroup() as group:
        pumping = group.create_task(kept.pump(take))
        for start in range(0, count, AT_ONCE):
            async with asyncio.TaskGroup() as turn:
                for number in range(start, min(start + AT_ONCE, count)):
                    turn.create_task(publish(f"m{number:03}"))
        await kept._backlog.ready.wait()
        if send and len(kept):
            kept.online(True)
            await over.wait()
            await asyncio.sleep(0)
        pumping.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--publish", type=int, default=0)
    parser.add_argument("--send", action="store_true")
    parser.add_argument("--kill-at", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.folder, arguments.publish, arguments.send, arguments.kill_at))


if __name__ == "__main__":
    main()
