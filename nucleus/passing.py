"""The orderly restart: takes what the process image before this one handed over, and hands everything to the next.

Order: deployments pause, requests of clients are held back, calls under way end; then all is described in one turn of the loop,
a deputy takes the clients (ipc/deputy.py) and the program of the process is replaced (host/reexec.py). The new image relieves the
deputy when everything else stands. What cannot be handed over is restarted in the ordinary way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from nucleus.actors import leaving, supervisor, token_exchange
from nucleus.core import component, errors, handover, release
from nucleus.core.lifecycle import Effect
from nucleus.host import launch, lock, logs, places, process, reexec
from nucleus.ipc import deputy, server
from nucleus.uplink import mqtt

PAUSE_S = 15.0  # for the deployer to let go of what it is doing
SENT_S = 0.5  # for the broker to confirm what was sent
IDLE_TRIES = 1000
_LOOK_S = 0.002


class Parts(Struct, frozen=True):
    """Whose state travels."""

    server: server.Server
    supervisor: supervisor.Supervisor
    connection: mqtt.Connection | None
    tokens: token_exchange.TokenExchange | None
    cli_tokens: dict[str, str]


class Passing:
    """Of one root, whose lock it holds. `state` was handed over to this image and is not in use yet; else None."""

    def __init__(self, where: places.Places, config: Path | None) -> None:
        self._places = where
        self._config = config
        self.state, self._damage = reexec.receive(where.root)
        self.sockets: handover.Sockets | None = None  # for the IPC server, once everything else is taken over
        self._lock = self.state.lock if self.state is not None else lock.take(where.root)

    def close(self, log: logs.Log) -> None:
        """The end of the process: what was handed over and is still not in use has nobody any more."""
        if self.state is not None:
            process.end_survivors(self._places.processes, log)
        os.close(self._lock)

    # ---- at the start ----------------------------------------------------------------------------------------------

    async def clear(self, log: logs.Log) -> int:
        """In an ordinary start ends what a predecessor left running; returns how many processes that were."""
        if self.state is not None:
            return 0
        ended = await asyncio.to_thread(process.end_survivors, self._places.processes, log)
        if self._damage:
            log.error("nucleus.not_taken_over", why=self._damage)
            self._damage = ""
            reexec.reap()
        return ended

    async def start(
        self, running: supervisor.Supervisor, wanted: Collection[component.Component], log: logs.Log
    ) -> None:
        """What was handed over goes on, everything else that is wanted starts."""
        self.sockets = None
        state, self.state = await self._relieved(log), None
        names = {one.name for one in wanted}
        carried = state.components.runners if state is not None else ()
        if state is not None:
            self.sockets = state.sockets
            running.take_over(state.components, names)
            log.info(
                "nucleus.taken_over",
                before=state.version,
                components=len(carried),
                milliseconds=round((time.monotonic() - state.began_at) * 1000),
            )
        kept = {one.record.name for one in carried if running.component(one.record.name) is not None}
        if left := [one for one in carried if one.record.name not in kept]:
            _close(descriptor for one in left for descriptor in handover.outputs(one))
            await asyncio.to_thread(process.end_survivors, self._places.processes, log, kept)
        for one in wanted:
            if one.name not in kept:
                running.adopt(one, Effect.START)

    async def _relieved(self, log: logs.Log) -> handover.State | None:
        """The state with the clients as their deputy leaves them; without it nothing can go on: the ordinary way."""
        state = self.state
        if state is None or state.deputy is None:
            return state
        clients = await asyncio.to_thread(deputy.relieve, state.deputy)
        if clients is not None:
            here = {client.descriptor for client in clients}
            _close(client.descriptor for client in state.sockets.clients if client.descriptor not in here)
            return structs.replace(state, sockets=structs.replace(state.sockets, clients=clients))
        log.error("nucleus.not_taken_over", why="who served the clients meanwhile has gone; everything starts anew")
        _close(handover.descriptors(state) - {self._lock, state.deputy.descriptor, *state.ports.values()})
        await asyncio.to_thread(process.end_survivors, self._places.processes, log)
        reexec.reap()
        return None

    # ---- at the end ------------------------------------------------------------------------------------------------

    async def over(self, parts: Parts, deploying: asyncio.Task[Any], leave: leaving.Leaving, log: logs.Log) -> None:
        """Hands everything to a new process image; returns only if that is impossible, or not wanted any more."""
        deploying.cancel()
        await asyncio.wait({deploying}, timeout=PAUSE_S)
        if parts.connection is not None:
            await parts.connection.hold(SENT_S)
        began_at = time.monotonic()
        try:
            await parts.server.quiet()
            heard = _listen_for_signals()
            for _ in range(IDLE_TRIES):
                await asyncio.sleep(_LOOK_S)  # what came before is heard now
                components = parts.supervisor.carry()
                if leave.code != leaving.HAND_OVER:
                    return
                if components is not None:
                    self._replace(parts, components, began_at, heard)
            log.error("nucleus.not_handed_over", why="the supervisor does not come to rest")
        except InterruptedError:
            leave.stop()
        except (OSError, ValueError, errors.NucleusError) as error:
            log.error("nucleus.not_handed_over", why=str(error))
        finally:
            leave.on_signals()

    def _replace(self, parts: Parts, components: handover.Components, began_at: float, heard: list[int]) -> None:
        """Without a turn of the loop: what is described must not change any more. Raises OSError."""
        state = handover.State(
            format=handover.FORMAT,
            pid=os.getpid(),
            root=str(self._places.root),
            version=release.VERSION,
            began_at=began_at,
            lock=self._lock,
            sockets=parts.server.carry(),
            components=components,
            cli_tokens=parts.cli_tokens,
            uplink=parts.connection.carry() if parts.connection is not None else None,
            ports=parts.tokens.carry() if parts.tokens is not None else {},
        )
        found = launch.Launches(self._places.root, under_loader=launch.LOADER_VARIABLE in os.environ)
        options = ["--config", str(self._config)] if self._config is not None else []
        command = reexec.python(found.interpreter(), "-m", "nucleus", "--root", str(self._places.root), *options)
        clerk = _appoint(parts.server, state.sockets)
        state = structs.replace(state, deputy=clerk)
        try:
            reexec.execute(command, handover.encode(state), handover.descriptors(state), heard)
        finally:  # only after a failure
            if clerk is not None:
                os.close(clerk.descriptor)
                deputy.dismiss(clerk)


def _appoint(known: server.Server, sockets: handover.Sockets) -> handover.Deputy | None:
    """None where no process can be started: the clients wait."""
    try:
        return deputy.appoint(known.ports, sockets)
    except OSError:
        return None


def _close(descriptors: Iterable[int]) -> None:
    for one in descriptors:
        os.close(one)


def _listen_for_signals() -> list[int]:
    """From now on signals are for the new image; those that another thread takes until then are found in the list."""
    heard: list[int] = []
    for number in reexec.SIGNALS:
        signal.signal(number, lambda got, _: heard.append(got))
    signal.pthread_sigmask(signal.SIG_BLOCK, reexec.SIGNALS)
    return heard
