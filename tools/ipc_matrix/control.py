"""The matrix's side of its drivers: component processes connect to one Unix socket and do what they are told.

Protocol: JSON lines. A driver first says {"role": ...}. A command is {"do": "call" | "subscribe" | "event" | "close", ...};
each has one answer: {"ok": the wire's JSON}, {"error": shape or "client:<kind>", "message"}, or {"missing": why} when the
client does not know the operation. `token` "" is the component's own identity. Events are asked for one by one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

from nucleus.wire import shapes

ANSWER_S = 60.0


class Control:
    """Drivers by role; of a restarted one the newest process counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._drivers: dict[str, Any] = {}
        self._news = threading.Condition()
        self._open: list[Any] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(ANSWER_S)
            lines = connection.makefile("rw")
            self._open += [lines, connection]
            role = json.loads(lines.readline() or "{}").get("role", "")
            with self._news:
                self._drivers[role] = lines
                self._news.notify_all()

    def wait(self, role: str, timeout_s: float = 60.0) -> None:
        """Raises TimeoutError when the driver does not come."""
        with self._news:
            if not self._news.wait_for(lambda: role in self._drivers, timeout_s):
                raise TimeoutError(
                    f"waited {timeout_s:g} s for the driver {role}; look at its log in the device's folder"
                )

    def ask(self, role: str, do: str, operation: str = "", **more: Any) -> dict[str, Any]:
        """Sends one command and returns the answer."""
        self.wait(role)
        names = list(shapes.OPERATIONS[operation][1:]) if operation else []
        command = {"do": do, "operation": operation, "shapes": names, "maps": _maps(names), "token": ""} | more
        lines = self._drivers[role]
        print(json.dumps(command), file=lines, flush=True)
        line = lines.readline()
        if not line:
            return {"error": "client:Gone", "message": f"the driver {role} ended"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join(ANSWER_S)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.close()


def _maps(names: list[str]) -> list[str]:
    """The members of a request that are maps, for clients that make a difference between maps and objects."""
    members = shapes.SHAPES[names[0]].split() if names else []
    return [name for name, _, kind in (one.partition(":") for one in members) if kind.startswith("{")]
