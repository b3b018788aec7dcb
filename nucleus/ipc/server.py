"""The server of the Greengrass IPC: accepts components, binds each to its name, serves its calls.

What flows in: connections on the Unix socket. What flows out: calls to the rows of `operations.TABLE`. One loop, no
threads; a handler that must wait is a task of the server's group, so one call never holds up another.
"""

from __future__ import annotations

import asyncio
import collections
import os
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nucleus.core import errors
from nucleus.core import handover as carrying
from nucleus.ipc import authorizer, call, connection, handover, operations, ports, socket_file
from nucleus.wire import rpc

RECEIVE_BYTES = 128 * 1024  # one buffer for all connections
NOWHERE = Path(os.devnull)  # of a server that listens nowhere
STOP_S = 1.0  # for the last frames when the daemon stops


class Server:
    """Serves until cancelled. `listening` is set once clients can connect."""

    def __init__(
        self,
        path: Path,
        ports: ports.Ports,
        log: ports.Log,
        *,
        limits: connection.Limits | None = None,
        carried: Callable[[], carrying.Sockets | None] = lambda: None,
    ) -> None:
        self.limits = limits or connection.Limits()
        self.ports = ports
        self.log = log
        self.listening = asyncio.Event()
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.reader = rpc.Reader()
        self.dropped_events = 0  # of connections that are gone
        self._path = path
        self._carried = carried
        self._connections: set[connection.Connection] = set()
        self._stopping = False
        self._idle = asyncio.Event()  # no connections
        self._idle.set()
        self._of_component: collections.Counter[str] = collections.Counter()

    async def run(self) -> None:
        """Raises NucleusError IO_ERROR when the socket cannot be bound."""
        loop = asyncio.get_running_loop()
        self._access = authorizer.Authorizer(self.ports.configuration, self.log)
        carried = self._carried()
        self._socket = handover.listener(carried, self._path) or socket_file.listen(self._path)
        listener = await loop.create_unix_server(lambda: connection.Connection(self), sock=self._socket)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                if carried is not None:
                    await handover.take_over(self, carried.clients, self.log)
                self.listening.set()
                self.log.info("ipc.listening", path=str(self._path))
                while True:  # ends by cancellation
                    await asyncio.sleep(self.limits.tick_s)
                    for one in list(self._connections):
                        one.tick(loop.time())
        finally:
            self._access.close()
            socket_file.remove(self._path)
            listener.close()
            await self._close_all()

    async def _close_all(self) -> None:
        """Lets the clients take what is queued for them, but not for long."""
        self._stopping = True
        for one in list(self._connections):
            one.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._idle.wait()
        except TimeoutError:
            for one in list(self._connections):
                one.abort("the nucleus stops")
            await self._idle.wait()  # aborting needs nothing from the peer

    # ---- to the next process image -------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Takes no more requests and lets those under way end."""
        await handover.quiet(self._connections)

    def carry(self) -> carrying.Sockets:
        """Everything as it is in this moment."""
        return carrying.Sockets(str(self._path), self._socket.fileno(), handover.collect(self._connections))

    # ---- what connections ask (connection.Owner) -----------------------------------------------------------------

    def accepted(self, one: connection.Connection) -> bool:
        """Takes a new connection in, if there is room for it."""
        if self._stopping:
            return False
        if len(self._connections) >= self.limits.connections:
            self.log.warning("ipc.connection_refused", why=f"there are {len(self._connections)} connections already")
            return False
        self._connections.add(one)
        self._idle.clear()
        if one.component:  # handed over
            self._of_component[one.component] += 1
        return True

    def admit(self, token: str) -> str | None:
        """The component of a token, unless it has too many connections; counts the new one."""
        name = self.ports.identify(token)
        if not name or self._of_component[name] >= self.limits.connections_of_one:
            return None
        self._of_component[name] += 1
        return name

    def lost(self, one: connection.Connection) -> None:
        """Forgets a connection."""
        if one not in self._connections:
            return  # it was not taken in, so nothing counts it
        self._connections.discard(one)
        if not self._connections:
            self._idle.set()
        self.dropped_events += one.dropped_events
        if one.component:
            self._of_component[one.component] -= 1
            self.log.debug("ipc.disconnected", component=one.component, dropped_events=one.dropped_events)

    def held(self, one: connection.Connection) -> None:
        """Ends the connection with the largest incomplete frame when all together hold too much."""
        if sum(each.held_bytes for each in self._connections) > self.limits.held_bytes:
            largest = max(self._connections, key=lambda each: each.held_bytes, default=one)
            largest.abort(f"it held {largest.held_bytes} bytes of an incomplete frame while memory was short")

    def serve(self, one: call.Call, payload: bytes) -> None:
        """Answers a call now, or later in a task of its own."""
        try:
            answer = operations.serve(one, payload, self._access)
        except Exception as error:  # the boundary to the client: whatever went wrong is its answer
            self._fail(one, error)
            return
        if isinstance(answer, dict):
            one.answer(answer)
        else:
            task = self._tasks.create_task(self._finish(one, answer))
            if asyncio.iscoroutine(answer):  # when the server stops first, it has not begun
                task.add_done_callback(lambda _, begun=answer: begun.close())  # type: ignore[misc]

    async def _finish(self, one: call.Call, pending: Awaitable[dict[str, Any]]) -> None:
        try:
            one.answer(await pending)
        except Exception as error:  # as in serve
            self._fail(one, error)

    def _fail(self, one: call.Call, error: Exception) -> None:
        if isinstance(error, rpc.OperationError):
            one.fail(error)
        elif isinstance(error, errors.NucleusError):
            one.fail(rpc.OperationError("ServiceError", error.detail, context={"code": error.code}))
        else:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            self.log.error(
                "ipc.handler_failed", operation=one.operation, component=one.caller, error=repr(error), where=where
            )
            one.fail(rpc.OperationError("ServiceError", f"cannot {one.operation}: internal failure, see the log"))
