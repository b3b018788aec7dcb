"""A TCP link with a round-trip time: a proxy that hands every byte on after half of it, in its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def slow_link(port: int, round_trip_s: float) -> Iterator[int]:
    """Listens on a free loopback port for connections to `port`; yields the free one."""
    ready: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []
    started = threading.Event()

    async def serve() -> None:
        stopping = asyncio.Event()
        server = await asyncio.start_server(lambda r, w: _connect(r, w, port, round_trip_s), "127.0.0.1", 0)
        ready.append((asyncio.get_running_loop(), stopping, server.sockets[0].getsockname()[1]))
        started.set()
        await stopping.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)  # its end cancels every connection
    thread.start()
    started.wait()
    loop, stopping, number = ready[0]
    try:
        yield number
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(5)


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, round_trip_s: float) -> None:
    await asyncio.sleep(round_trip_s)  # the handshake of TCP itself
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(reader, far_writer, round_trip_s / 2))
            group.create_task(_carry(far_reader, writer, round_trip_s / 2))
    except* (
        OSError,
        asyncio.CancelledError,
    ):  # the end of the link: asyncio.streams complains about cancelled callbacks
        pass
    finally:
        for one in (writer, far_writer):
            one.close()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay_s: float) -> None:
    """Bytes arrive `delay_s` later, in order; many may be on their way."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=10_000)

    async def deliver() -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                target.close()
                return
            target.write(data)
            await target.drain()

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        while data := await source.read(65536):
            await on_the_way.put((loop.time() + delay_s, data))
        await on_the_way.put((loop.time() + delay_s, b""))
