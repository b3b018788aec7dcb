"""A client that can also misbehave: bytes in, frames out, over a blocking socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from nucleus.wire import eventstream, rpc


class Raw:
    """One connection; `token` connects at once."""

    def __init__(self, path: Path, token: str = "") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._decoder = eventstream.Decoder()
        self._reader = rpc.Reader()
        self._ready: list[rpc.Message] = []
        if token:
            self.send(rpc.connect(token))
            ack = self.read()
            assert ack is not None
            assert (ack.head.kind, ack.head.flags) == (rpc.Kind.CONNECT_ACK, rpc.ACCEPTED)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> rpc.Message | None:
        """The next message; None when the server has closed."""
        while not self._ready:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._ready += [self._reader.read(frame) for frame in self._decoder.feed(data)]
        return self._ready.pop(0)

    def read_to_end(self) -> list[rpc.Message]:
        """Everything until the server closes."""
        return list(iter(self.read, None))

    def call(self, stream_id: int, operation: str, body: Any) -> rpc.Message | None:
        self.send(request(stream_id, operation, json.dumps(body).encode()))
        return self.read()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(stream_id: int, operation: str, payload: bytes = b"{}", flags: int = 0, prefix: bytes = b"") -> bytes:
    """A client's first frame of a stream, without the headers that the C SDK leaves out, too."""
    numbers = rpc.encode(rpc.Kind.MESSAGE, flags, stream_id)[12:-4]
    name = eventstream.string("operation", rpc.NAMESPACE + operation) if operation else b""
    return eventstream.encode(prefix + name + numbers, payload)


def body(message: rpc.Message | None) -> Any:
    assert message is not None, "the server has closed the connection"
    return rpc.load(message.frame.payload)
