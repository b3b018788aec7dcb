"""The broker's process: started, watched, restarted when it dies, ended with the service.

The child ends by itself when its standard input closes, so it outlives no parent, however that one died.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from asyncio import subprocess
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

    def info(self, event: str, **fields: Any) -> Any:
        """Records an event."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Records an event somebody should look at."""


class Child:
    """One broker process after the other, all on the port the first one got."""

    def __init__(self, root: Path, host: str, port: int, log: Log) -> None:
        self._root = root
        self._host = host
        self._port = port
        self._log = log

    async def start(self) -> tuple[subprocess.Process, int]:
        """A new process that listens, and its port; raises RuntimeError with the process's own words if it cannot."""
        process = await subprocess.create_subprocess_exec(
            sys.executable, "-m", "cloud.mqtt.broker", "--supervised",
            "--root", str(self._root), "--host", self._host, "--port", str(self._port),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        heard = False
        try:
            async with asyncio.timeout(_START_S):
                line = await _stream(process.stdout).readline()
            heard = True
        finally:
            if not heard:
                await _end(process)
        if not line:
            said = (await _stream(process.stderr).read()).decode(errors="replace").strip().splitlines()
            code = await process.wait()
            raise RuntimeError(f"cannot start the broker: {said[-1] if said else f'it ended with code {code}'}")
        self._port = int(json.loads(line)["port"])
        self._log.info("broker.listening", host=self._host, port=self._port, pid=process.pid)
        return process, self._port

    async def run(self, process: subprocess.Process) -> None:
        """Watches a started process and starts the next when it dies, until cancelled."""
        delay_s = _BACKOFF_S[0]
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._live(process)
            if loop.time() - began > _STEADY_S:
                delay_s = _BACKOFF_S[0]
            self._log.warning("broker.exited", code=code, restart_after_s=round(delay_s, 2))
            process, delay_s = await self._restart(delay_s)

    async def _restart(self, delay_s: float) -> tuple[subprocess.Process, float]:
        """The next process, after a wait that grows; with the wait for the one after it."""
        while True:
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay_s = min(delay_s * 2, _BACKOFF_S[1])
            try:
                process, _ = await self.start()
            except (RuntimeError, OSError, TimeoutError) as error:
                self._log.warning("broker.not_started", why=str(error))
                continue
            return process, delay_s

    async def _live(self, process: subprocess.Process) -> int:
        """One process to its end; ends it when cancelled."""
        try:
            while line := await _stream(process.stderr).readline():
                self._log.info("broker.reported", text=line.decode(errors="replace").rstrip())
            return await process.wait()
        finally:
            await _end(process)


@asynccontextmanager
async def broker(root: Path, *, host: str, port: int, log: Log) -> AsyncIterator[tuple[socket_port.SocketPort, int]]:
    """A running broker and the port it listens on (0 asks for a free one); it is ended with the block.

    `root` must hold `server.pem`, `server.key` and `ca.pem`. Raises RuntimeError if the broker cannot start; what the
    block itself raises comes out in the ExceptionGroup of a TaskGroup.
    """
    child = Child(root, host, port, log)
    to = socket_port.SocketPort(root)
    process, number = await child.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child.run(process)), group.create_task(to.run())]
        try:
            async with asyncio.timeout(_START_S):
                await to.connected()
            yield to, number
        finally:
            for task in reversed(tasks):
                task.cancel()


async def _end(process: subprocess.Process) -> None:
    """Closes the child's input, which ends it; kills it after a while."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert stream is not None  # every stream of the child is a pipe
    return stream
