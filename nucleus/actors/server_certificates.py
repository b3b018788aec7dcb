"""Server certificates for local brokers: an authority of this device, a key pair for each component that subscribes.

In: subscriptions of the IPC, the configuration, the clock. Out: certificates, made in the vault's process. A component
keeps its certificate through restarts until a third of its time is left, the host has a name or address that it lacks, or
another validity is configured. Invariants: keys are on disk before anybody gets them; one certificate is made at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nucleus.core import client_devices, errors
from nucleus.host import logs
from nucleus.store import client_devices as store

AUTHORITY_S = 10 * 365 * 86_400.0
AUTHORITY_LEFT_S = 60 * 86_400.0  # with less a new one is made: no server certificate may outlive it
BACKDATED_S = 3_600.0  # a client device's clock may be behind
LOOK_S = 3_600.0  # addresses and the clock change without telling
AGAIN_S = 60.0  # after a certificate could not be made

Deliver = Callable[[store.Server], None]
Vault = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]


class ServerCertificates:
    """`names` tells how this device is reached, `vault` does what needs cryptography (host.vault.call)."""

    def __init__(
        self,
        kept: store.ClientDeviceStore,
        vault: Vault,
        names: Callable[[], Sequence[str]],
        read: Callable[[], client_devices.Settings],
        log: logs.Log,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = kept
        self._vault = vault
        self._names = names
        self._read = read
        self._log = log
        self._wall = wall
        self._subscribers: dict[str, list[Deliver]] = {}
        self._current: dict[str, store.Server] = {}  # of subscribed components
        self._making = asyncio.Lock()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._wake.clear()
            pause_s = await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def changed(self) -> None:
        """The configuration changed."""
        self._wake.set()

    async def look(self) -> float:
        """Replaces what is due and tells the subscribers; returns seconds until the next look."""
        pause_s = LOOK_S
        for component in list(self._subscribers):
            try:
                one = await self.current(component)
            except errors.NucleusError as error:
                self._log.error("client_devices.no_certificate", component=component, why=error.detail)
                pause_s = AGAIN_S
                continue
            pause_s = min(pause_s, max(_due_s(one) - self._wall(), 1.0))
        return pause_s

    def subscribe(self, component: str, deliver: Deliver) -> Callable[[], None]:
        """`deliver` gets every later certificate of the component; returns the cancellation."""
        self._subscribers.setdefault(component, []).append(deliver)
        self._wake.set()

        def cancel() -> None:
            left = self._subscribers[component]
            left.remove(deliver)
            if not left:
                del self._subscribers[component]
                self._current.pop(component, None)

        return cancel

    async def current(self, component: str) -> store.Server:
        """The component's certificate, a new one if it is due: that is told to its subscribers.

        Raises NucleusError.
        """
        async with self._making:
            found = self._current.get(component) or await asyncio.to_thread(self._store.server, component)
            authority = await self._authority()
            settings, names = self._read(), self._wanted()
            if found is None or self._is_due(found, settings, names, authority):
                found = await self._make(component, settings, names, authority)
            if component in self._subscribers:
                self._current[component] = found
        return found

    def _is_due(
        self, one: store.Server, settings: client_devices.Settings, names: Sequence[str], authority: store.Authority
    ) -> bool:
        now_s = self._wall()
        is_in_time = one.from_s <= now_s < _due_s(one)
        is_as_wanted = one.validity_s == settings.validity_s and set(names) <= set(one.names)
        return not (is_in_time and is_as_wanted and one.authority == authority.certificate)

    async def _make(
        self, component: str, settings: client_devices.Settings, names: Sequence[str], authority: store.Authority
    ) -> store.Server:
        from_s, until_s = self._wall() - BACKDATED_S, self._wall() + settings.validity_s
        item = {"name": names[0], "names": list(names), "from": from_s, "until": until_s}
        question = {"keys": [authority.private_key], "authority": authority.certificate}
        made = await self._ask("server", item, question)
        found = store.Server(
            component=component,
            private_key=made["privateKey"],
            public_key=made["publicKey"],
            certificate=made["certificate"],
            authority=authority.certificate,
            names=tuple(names),
            from_s=from_s,
            until_s=until_s,
            validity_s=settings.validity_s,
        )
        await asyncio.to_thread(self._store.save_server, found)
        self._log.info("client_devices.certificate", component=component, names=list(names), until=until_s)
        for deliver in list(self._subscribers.get(component, ())):
            deliver(found)
        return found

    async def _authority(self) -> store.Authority:
        found = await asyncio.to_thread(self._store.authority)
        now_s = self._wall()
        if found is not None and now_s < found.until_s - AUTHORITY_LEFT_S:
            return found
        until_s = now_s + AUTHORITY_S
        item = {"name": "Marram core device authority", "from": now_s - BACKDATED_S, "until": until_s}
        made = await self._ask("authority", item, {})
        found = store.Authority(made["privateKey"], made["certificate"], until_s)
        await asyncio.to_thread(self._store.save_authority, found)
        self._log.info("client_devices.authority", until=until_s)
        return found

    async def _ask(self, operation: str, item: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, str]:
        answer = await self._vault(operation, {"version": 1, "items": [item], **more})
        return dict(answer["items"][0])

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys(("localhost", *self._read().names, *self._names())))


def _due_s(one: store.Server) -> float:
    """When it is replaced: with a third of its time left."""
    return one.until_s - one.validity_s / 3
