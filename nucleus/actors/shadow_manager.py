"""`aws.greengrass.ShadowManager`: the local service and its synchronisation under one configuration.

In: the configuration, whenever it may have changed. Out: `report` of how the built-in component is. Settings that cannot be
understood are told and left out; what is right of them holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nucleus.actors import broker, shadow_cloud, shadow_file, shadow_sync, shadows
from nucleus.core import shadow_settings
from nucleus.store import shadows as store


class ShadowManager:
    """`read` gives the settings, None while the component is not installed; `report` gets whether it is well, and why not.

    Without a `connection` shadows are served locally only.
    """

    def __init__(
        self,
        held: store.ShadowStore,
        local: broker.Broker,
        codec: shadows.Codec,
        connection: shadow_cloud.Connection | None,
        *,
        read: Callable[[], shadow_settings.Settings | None],
        report: Callable[[bool, str], None],
        log: shadows.Log,
    ) -> None:
        self._read = read
        self._report = report
        self._log = log
        self._settings: shadow_settings.Settings | None = None
        self._file_is: tuple[bool, str] = (True, "")
        file = shadow_file.ShadowFile(held, self._file_changed, log)
        self.shadows = shadows.Shadows(file, local, codec, settings=lambda: self._settings, log=log)
        self._sync: shadow_sync.ShadowSync | None = None
        if connection is not None:
            self._sync = shadow_sync.ShadowSync(self.shadows, connection, settings=lambda: self._settings, log=log)
        self.changed()

    def changed(self) -> None:
        """Takes over the configuration. The whole of it is read each time: a part that was reset has not gone for good."""
        settings = self._read()
        if settings == self._settings:
            return
        self._settings = settings
        if settings is not None:
            for problem in settings.problems:
                self._log.error("shadow.setting_ignored", why=problem)
            self._tell()
        if self._sync is not None:
            self._sync.wake()

    def connected(self) -> None:
        if self._sync is not None:
            self._sync.connected()

    async def request(self, verb: str, thing: str, name: str, payload: bytes = b"") -> bytes:
        """As Shadows."""
        return await self.shadows.request(verb, thing, name, payload)

    async def names(self, thing: str, after: str, limit: int) -> list[str]:
        """As Shadows."""
        return await self.shadows.names(thing, after, limit)

    async def run(self) -> None:
        """Serves and synchronises until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.shadows.run())
            if self._sync is not None:
                group.create_task(self._sync.run())

    def _file_changed(self, is_well: bool, why: str) -> None:
        self._file_is = (is_well, why)
        self._tell()

    def _tell(self) -> None:
        is_well, why = self._file_is
        problems = self._settings.problems if self._settings is not None else ()
        self._report(is_well and not problems, "; ".join(filter(None, (why, *problems))))
