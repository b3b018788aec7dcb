"""Our own client, the one file that is copied into artifacts as `marram_ipc.py`, as a component that does what the matrix says.

    our_driver.py CONTROL_SOCKET ROLE

Protocol: JSON lines on the control socket, one answer for each command (tools/ipc_matrix/control.py).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

import marram_ipc

CALL_S = 30


class Driver:
    """The connections, one for each token in use, and the open subscriptions."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        self._subscriptions: dict[int, Any] = {}

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": getattr(self, "do_" + command["do"])(command)}
        except marram_ipc.IPCError as error:
            return {"error": error.code, "message": error.message}
        except Exception as error:  # whatever it is, the matrix shows it
            return {"error": f"client:{type(error).__name__}", "message": str(error)}

    def do_call(self, command: dict[str, Any]) -> Any:
        return self._client(command).call(command["operation"], command["request"], timeout_s=CALL_S)

    def do_subscribe(self, command: dict[str, Any]) -> Any:
        subscription = self._client(command).subscribe(command["operation"], command["request"])
        self._subscriptions[command["id"]] = subscription
        return subscription.response

    def do_event(self, command: dict[str, Any]) -> Any:
        event = self._subscriptions[command["id"]].next_event(command["timeout_s"])
        if event is None:
            raise marram_ipc.IPCError("client:NoEvent", "no event came in time")
        return event

    def do_close(self, command: dict[str, Any]) -> Any:
        self._subscriptions.pop(command["id"]).close()
        return {}

    def _client(self, command: dict[str, Any]) -> Any:
        token = command["token"]
        if token not in self._clients:
            self._clients[token] = marram_ipc.Client(token=token or os.environ["SVCUID"])
        return self._clients[token]


def main(path: str, role: str) -> None:
    control = socket.socket(socket.AF_UNIX)
    control.connect(path)
    lines = control.makefile("rw")
    print(json.dumps({"role": role}), file=lines, flush=True)
    driver = Driver()
    for line in lines:
        print(json.dumps(driver.do(json.loads(line))), file=lines, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
