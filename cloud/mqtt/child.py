"""The broker's process: started, watched, restarted when it dies, ended with the service.

The child ends by itself when its standard input closes, so it outlives no parent, however that one died.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from cloud.mqtt import socket_port

_START_S = 20.0
_END_S = 5.0
_BACKOFF_S = (0.1, 5.0)
_STEADY_S = 30.0  # a child that lived so long starts the backoff anew


class Log(Protocol):
    """structlog's logger, or the device's own."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class Child:
    """One broker process after the other, all on the port the first one got."""

    def __init__(self, root: Path, host: str, port: int, log: Log) -> None:
        self._root = root
        self._host = host
        self._port = port
        self._log = log
        self._listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._said: list[str] = []
        self.pid = 0

    async def listening(self) -> int:
        """The port, once the first process listens; raises RuntimeError if it could not start."""
        return await self._listening

    async def run(self) -> None:
        """Starts and restarts until cancelled."""
        delay_s = _BACKOFF_S[0]
        loop = asyncio.get_running_loop()
        while True:
            started_at = loop.time()
            code = await self._live()
            if not self._listening.done():
                said = self._said[-1] if self._said else f"exit code {code}"
                self._listening.set_exception(RuntimeError(f"cannot start the broker: {said}"))
                return
            if loop.time() - started_at > _STEADY_S:
                delay_s = _BACKOFF_S[0]
            self._log.warning("broker.exited", code=code, restart_after_s=round(delay_s, 2))
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay_s = min(delay_s * 2, _BACKOFF_S[1])

    async def _live(self) -> int:
        """One process from start to end; ends it when cancelled."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cloud.mqtt.broker", "--supervised",
            "--root", str(self._root), "--host", self._host, "--port", str(self._port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.pid = process.pid
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(process.stderr))
                group.create_task(self._hear_port(process.stdout))
                return await process.wait()
        finally:
            await _end(process)

    async def _hear_port(self, stream: asyncio.StreamReader | None) -> None:
        line = await stream.readline() if stream is not None else b""
        if not line:
            return
        self._port = int(json.loads(line)["port"])
        self._log.info("broker.listening", host=self._host, port=self._port, pid=self.pid)
        if not self._listening.done():
            self._listening.set_result(self._port)

    async def _hear(self, stream: asyncio.StreamReader | None) -> None:
        while stream is not None and (line := await stream.readline()):
            text = line.decode(errors="replace").rstrip()
            self._said = [*self._said[-9:], text]
            self._log.info("broker.reported", text=text)


@asynccontextmanager
async def broker(root: Path, *, host: str, port: int, log: Log) -> AsyncIterator[tuple[socket_port.SocketPort, int]]:
    """A running broker and the port it listens on (0 asks for a free one); it is ended with the block.

    `root` must hold `server.pem`, `server.key` and `ca.pem`. Raises RuntimeError if the broker cannot start.
    """
    child = Child(root, host, port, log)
    to = socket_port.SocketPort(root)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child.run())]
        try:
            async with asyncio.timeout(_START_S):
                number = await child.listening()
                tasks.append(group.create_task(to.run()))
                await to.connected()
            yield to, number
        finally:
            for task in reversed(tasks):
                task.cancel()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Closes the child's input, which ends it; kills it after a while."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
