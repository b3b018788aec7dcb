"""What an uploading agent needs around it: a token exchange, and a link to the cloud that can be cut."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import socket
import socketserver
import threading
import time
from typing import Any

import agent_credentials

_TOKEN = "token-of-the-agent"


class TokenExchange:
    """The nucleus's credential endpoint, as the AWS SDKs ask it."""

    def __init__(self, key_id: str, secret: str) -> None:
        self.asked = 0
        self.failing = False
        self.lasts_s = 10 * 86400.0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 the names of the standard library
                self.asked += 1
                allowed = handler.headers["Authorization"] == _TOKEN and not self.failing
                until = datetime.datetime.fromtimestamp(time.time() + self.lasts_s, datetime.UTC)
                given = {
                    "AccessKeyId": key_id,
                    "SecretAccessKey": secret,
                    "Token": "",
                    "Expiration": f"{until:%Y-%m-%dT%H:%M:%SZ}",
                }
                body = json.dumps(given).encode() if allowed else b"no connection to the cloud"
                handler.send_response(200 if allowed else 500)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_: Any) -> None:  # noqa: N805
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}/2016-11-01/credentialprovider/"
        self.environment = {agent_credentials.URI_VARIABLE: self.uri, agent_credentials.TOKEN_VARIABLE: _TOKEN}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Link:
    """The way to a port of this machine, at an `endpoint` of its own; cut, nobody listens there."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._live: set[socket.socket] = set()
        self._server: socketserver.ThreadingTCPServer | None = None
        self._port = 0
        self.restore()
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def restore(self) -> None:
        """Lets connections through."""
        link = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", link._target)) as upstream:
                    both = {self.request, upstream}
                    link._live |= both
                    back = threading.Thread(target=_pump, args=(upstream, self.request))
                    back.start()
                    _pump(self.request, upstream)
                    back.join()
                    link._live -= both

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def cut(self) -> None:
        """Ends what goes through, and listens no more."""
        if self._server is None:
            return
        self._server.shutdown()
        self._thread.join()
        for each in list(self._live):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._server = None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
