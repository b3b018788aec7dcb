"""Stands in for the IPC server while the next process image loads its modules: local publish/subscribe does not pause.

A deputy is a fork of the old image with its connections and nothing else. It serves what needs no part of the daemon that
changes (SERVED); the first other request of a client, and everything that client sends after it, waits for the next image.
When that asks, the deputy describes the connections (core/handover.py) and ends; it ends as well when nobody can ask any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from typing import Any, NoReturn

import msgspec

from nucleus.actors import broker
from nucleus.core import handover as carrying
from nucleus.host import reexec
from nucleus.ipc import authorizer, handover, ports, server
from nucleus.wire import rpc

SERVED = frozenset({"PublishToTopic", "SubscribeToTopic", "GetConfiguration"})
RELIEVED_S = 10.0
_SERVICES = (b"$aws", b"\\u0024")  # topics of services of the daemon, which are not here; also with an escaped `$`
_TAKEN = b"!"


def appoint(known: ports.Ports, sockets: carrying.Sockets) -> carrying.Deputy:
    """Forks a deputy that serves the clients of `sockets`. Raises OSError."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if not pid:
        _stand_in(its, known, sockets)
    its.close()
    return carrying.Deputy(ours.detach(), pid)


def relieve(post: carrying.Deputy) -> tuple[carrying.Client, ...] | None:
    """What the clients' connections are like now; None if the deputy has come to grief. Blocks for milliseconds."""
    found = bytearray()
    with socket.socket(fileno=post.descriptor) as asking, contextlib.suppress(OSError):
        asking.settimeout(RELIEVED_S)
        asking.sendall(_TAKEN)
        while piece := asking.recv(1 << 20):
            found += piece
    dismiss(post)
    try:
        return msgspec.json.decode(found, type=tuple[carrying.Client, ...])
    except msgspec.DecodeError:
        return None


def dismiss(post: carrying.Deputy) -> None:
    """Ends it, if it has not ended; its descriptor must be closed."""
    with contextlib.suppress(OSError):
        os.kill(post.pid, signal.SIGKILL)
        os.waitpid(post.pid, 0)


def _stand_in(talk: socket.socket, known: ports.Ports, sockets: carrying.Sockets) -> NoReturn:
    """In the fork: nothing of the old loop runs any more, and what is left of it is never cleaned up."""
    try:
        gc.freeze()
        signal.set_wakeup_fd(-1)
        for number in reexec.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        reexec.close_but({talk.fileno(), *(client.descriptor for client in sockets.clients)})
        asyncio._set_running_loop(None)
        deputy = _Deputy(known)
        with asyncio.Runner() as runner:
            found = runner.run(deputy.serve_until_asked(talk, sockets))
            if found is not None:
                talk.setblocking(True)
                talk.sendall(msgspec.json.encode(found))
            os._exit(0)
    except BaseException as error:  # the principal will see that nothing came
        os.write(2, f"the IPC's deputy failed: {error!r}\n".encode())
    finally:
        os._exit(1)


class _Silent:
    """The log file belongs to the next image by now."""

    def _nothing(self, event: str, /, **fields: Any) -> None: ...

    debug = info = warning = error = _nothing


class _Deputy(server.Server):
    def __init__(self, known: ports.Ports) -> None:
        alone = msgspec.structs.replace(known, broker=broker.Broker())
        super().__init__(server.NOWHERE, alone, _Silent())

    async def serve_until_asked(
        self, talk: socket.socket, sockets: carrying.Sockets
    ) -> tuple[carrying.Client, ...] | None:
        """None when there is nobody to ask."""
        talk.setblocking(False)
        self._access = authorizer.Authorizer(self.ports.configuration, self.log)
        async with asyncio.TaskGroup() as self._tasks:
            await handover.take_over(self, sockets.clients, self.log, _StandIn)
            asked = await asyncio.get_running_loop().sock_recv(talk, 1)
        if not asked:
            return None
        await handover.quiet(self._connections, 0.0)
        return handover.collect(self._connections)


class _StandIn(handover.Taken):
    """Serves what is SERVED until something else comes."""

    def __init__(self, owner: server.Server, client: carrying.Client) -> None:
        super().__init__(owner, client)
        self._blocked = False

    def is_ours(self, stream: carrying.Stream) -> bool:
        return stream.operation in SERVED

    def _take(self, message: rpc.Message) -> None:
        if self._blocked or not self._may_serve(message):
            self._blocked = True
            self._waiting.append(message)
            self._transport.pause_reading()
            return
        super()._take(message)

    def _continue(self) -> None:
        if not self._blocked:
            super()._continue()

    def _may_serve(self, message: rpc.Message) -> bool:
        if not self.component:
            return False
        if not message.stream_id:
            return message.head.kind == rpc.Kind.PING
        if message.head.flags & rpc.TERMINATE:
            return True
        return message.head.operation in SERVED and not any(one in message.frame.payload for one in _SERVICES)
