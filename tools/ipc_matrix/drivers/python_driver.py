"""The unmodified official Python client (awsiotsdk, clientv2) as a component that does what the matrix says.

    python_driver.py CONTROL_SOCKET ROLE

Protocol: JSON lines on the control socket, one answer for each command (tools/ipc_matrix/control.py).
"""

from __future__ import annotations

import json
import queue
import re
import socket
import sys
from typing import Any

import awsiot.greengrasscoreipc
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import clientv2, model

CALL_S = 30


class Driver:
    """The connections, one for each token in use, and the open subscriptions."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        self._events: dict[int, queue.Queue[Any]] = {}
        self._operations: dict[int, Any] = {}

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": getattr(self, "do_" + command["do"])(command)}
        except eventstreamrpc.ErrorShape as error:
            return {"error": type(error).__name__, "message": error.message}
        except queue.Empty:
            return {"error": "client:NoEvent", "message": "no event came in time"}
        except Exception as error:  # whatever it is, the matrix shows it
            return {"error": f"client:{type(error).__name__}", "message": str(error)}

    def do_call(self, command: dict[str, Any]) -> Any:
        return self._method(command)(**_arguments(command)).result(CALL_S)._to_payload()

    def do_subscribe(self, command: dict[str, Any]) -> Any:
        events: queue.Queue[Any] = queue.Queue()
        future, operation = self._method(command)(
            **_arguments(command),
            on_stream_event=events.put,
            on_stream_error=lambda error: bool(events.put(error)) or True,
            on_stream_closed=lambda: None,
        )
        response = future.result(CALL_S)
        self._events[command["id"]], self._operations[command["id"]] = events, operation
        return response._to_payload()

    def do_event(self, command: dict[str, Any]) -> Any:
        event = self._events[command["id"]].get(timeout=command["timeout_s"])
        if isinstance(event, Exception):
            raise event
        return event._to_payload()

    def do_close(self, command: dict[str, Any]) -> Any:
        self._operations.pop(command["id"]).close().result(CALL_S)
        return {}

    def _method(self, command: dict[str, Any]) -> Any:
        token = command["token"]
        if token not in self._clients:
            low = awsiot.greengrasscoreipc.connect(authtoken=token) if token else None
            self._clients[token] = clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)
        words = command["operation"].replace("IoT", "Iot")
        snake = re.sub(r"(?<!^)([A-Z])", r"_\1", words).lower()
        return getattr(self._clients[token], snake + "_async")


def _arguments(command: dict[str, Any]) -> dict[str, Any]:
    """The request as the keyword arguments of clientv2: the model's own classes read the wire's JSON."""
    request = getattr(model, command["shapes"][0])._from_payload(command["request"])
    return {name: value for name, value in vars(request).items() if value is not None}


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
