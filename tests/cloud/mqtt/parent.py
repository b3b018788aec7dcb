"""A parent for the broker's process, run by a test that kills it: prints the child's pid and waits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from cloud.mqtt import child


class Pid:
    """A log that prints the pid of the broker that listens."""

    def info(self, event: str, **fields: Any) -> None:
        if event == "broker.listening":
            print(fields["pid"], flush=True)

    warning = info


async def main() -> None:
    async with child.broker(Path(sys.argv[1]), host="127.0.0.1", port=0, log=Pid()):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
