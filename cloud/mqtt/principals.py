"""Pushes certificates, things and policies to the broker as one versioned snapshot, after each change of them."""

from __future__ import annotations

import asyncio

import msgspec
import sqlalchemy
import structlog

from cloud.mqtt import bell, port
from cloud.store import database, principals

_RETRY_S = 0.5


class Pusher:
    """One actor: `run` until cancelled; `bell` is rung after a commit that may have changed principals."""

    def __init__(
        self,
        database: database.Database,
        broker: port.BrokerPort,
        bell: bell.Bell,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._database = database
        self._broker = broker
        self._log = log
        self._bell = bell
        self._pushed = -1

    async def run(self) -> None:
        while True:
            await self._bell.wait()
            if not await self.push():
                await asyncio.sleep(_RETRY_S)
                self._bell.ring()

    async def push(self) -> bool:
        """Pushes what the broker does not know yet; False if it, or the database, could not be reached."""
        try:
            snapshot = await asyncio.to_thread(self._read)
            if snapshot is None:
                return True
            await self._broker.push(snapshot)
        except (OSError, port.BrokerUnavailableError, sqlalchemy.exc.OperationalError) as error:
            self._log.warning("principals.delayed", why=str(error), retry_s=_RETRY_S)
            return False
        self._pushed = snapshot.version
        self._log.debug("principals.pushed", version=snapshot.version, principals=len(snapshot.principals))
        return True

    def _read(self) -> port.Snapshot | None:
        with self._database.read() as tx:
            if principals.version(tx) == self._pushed:
                return None
            return msgspec.convert(principals.snapshot(tx), port.Snapshot)
