"""Serves the operator's API with uvicorn on a socket of our own, without uvicorn's signals and logs."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

_GRACE_S = 1  # for requests in progress at the end; a client tries again


class OperatorServer:
    """Binds when made, so that a taken port is an early and clear error; accepts in `start`, serves in `run`."""

    def __init__(self, app: ASGIApp, host: str, port: int, tls: tuple[Path, Path] | None) -> None:
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
                ssl_certfile=tls and tls[0],
                ssl_keyfile=tls and tls[1],
            )
        )

    async def start(self) -> None:
        """From here on connections are accepted."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._socket])

    async def run(self) -> None:
        """Until cancelled; then closes within about a second."""
        try:
            # Server.serve() would take SIGTERM and SIGINT for itself.
            await self._server.main_loop()
        finally:
            await self._server.shutdown(sockets=[self._socket])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio turns Nagle off; without, each answer may wait 40 ms for the peer's ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        why = f"cannot listen for the operator's API on {host}:{port}: {error.strerror}; choose another port, 0 for any"
        raise OSError(error.errno, why) from error
    return bound
