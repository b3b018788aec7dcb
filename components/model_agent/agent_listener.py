"""A listening socket that may be left to another process and taken back without closing it.

A socket that two processes hold is one queue: whoever accepts has the connection. So nothing here ever waits in `accept`,
and `pause` returns only when no connection can come this way any more.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading

_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))  # of this moment: what comes waits
_AGAIN_MS = 100


class Listener:
    """Wraps a socket that listens; takes it over."""

    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)  # of the socket, for every process that has it
        self._socket = listening
        self._lock = threading.Lock()
        self._paused = self._closed = False
        self._woken, self._wake = os.pipe()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next connection; None when it was closed."""
        scarce = False
        while True:
            wait = select.poll()
            wait.register(self._woken, select.POLLIN)
            if not (self._paused or scarce):
                wait.register(self._socket, select.POLLIN)
            wait.poll(_AGAIN_MS if scarce else None)
            with self._lock:
                if self._closed:
                    return None
                self._drain()
                scarce = False
                if self._paused:
                    continue
                try:
                    connection, _ = self._socket.accept()
                except BlockingIOError:
                    continue  # woken, or another process was quicker
                except OSError as error:
                    if error.errno not in _SCARCE:
                        return None
                    scarce = True
                    continue
            connection.setblocking(True)
            return connection

    def pause(self) -> None:
        """Leaves what comes to whoever has the socket, too."""
        self._set(paused=True)

    def resume(self) -> None:
        """Accepts again."""
        self._set(paused=False)

    def close(self) -> None:
        """For this process; `accept` returns None."""
        with self._lock:
            self._closed = True
            self._socket.close()
            os.write(self._wake, b"x")

    def _set(self, *, paused: bool) -> None:
        with self._lock:
            self._paused = paused
            os.write(self._wake, b"x")

    def _drain(self) -> None:
        if select.select([self._woken], [], [], 0)[0]:
            os.read(self._woken, 64)
