"""Switches that let the nucleus misbehave, to see what a component makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nucleus.ipc import call, server
from nucleus.wire import rpc

Switch = Callable[[call.Call, Callable[[], None]], None]  # the call, and what would serve it


class Faults:
    """Which operations misbehave, for one component or for all (`component` empty). The last switch set counts."""

    def __init__(self) -> None:
        self._switches: dict[tuple[str, str], Switch] = {}

    def deny(self, operation: str, component: str = "") -> None:
        """Answers UnauthorizedError, whatever the policies say."""
        self.fail(operation, "UnauthorizedError", "denied by the test", component)

    def fail(
        self, operation: str, error: str = "ServiceError", message: str = "made by the test", component: str = ""
    ) -> None:
        """Answers with an error shape of the model."""
        self._switches[operation, component] = lambda one, _: one.fail(rpc.OperationError(error, message))

    def drop(self, operation: str, component: str = "") -> None:
        """Never answers; the request has no effect."""
        self._switches[operation, component] = lambda _one, _serve: None

    def slow(self, operation: str, seconds: float, component: str = "") -> None:
        """Serves when the test's clock has moved on by so much."""
        self._switches[operation, component] = lambda _, serve: _later(seconds, serve)

    def clear(self, operation: str = "") -> None:
        """Takes back the switches of an operation, or all."""
        self._switches = {key: one for key, one in self._switches.items() if operation and key[0] != operation}

    def find(self, operation: str, component: str) -> Switch | None:
        return self._switches.get((operation, component)) or self._switches.get((operation, ""))


def _later(seconds: float, serve: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, serve)


class FaultyServer(server.Server):
    """The real server behind the switches."""

    faults: Faults

    def serve(self, one: call.Call, payload: bytes) -> None:
        switch = self.faults.find(one.operation, one.caller)
        if switch is None:
            super().serve(one, payload)
        else:
            switch(one, lambda: super(FaultyServer, self).serve(one, payload))
