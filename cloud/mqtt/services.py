"""Takes what devices publish to the service's topics, and acknowledges it once its effects are durable.

Requests that arrive together share a transaction: a herd that reconnects costs one fsync for many. One that cannot be
answered for a reason of its own is undone alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import sqlalchemy
import structlog

from cloud.mqtt import fleet_status, jobs, port, provisioning, shadows
from cloud.store import database

_BATCH = 64
_QUEUE = 256  # then nothing more is read, and the broker holds back the devices' PUBACKs
_RETRY_S = 0.5


class Services:
    """One actor: `run` until cancelled. `written` is called after each commit; without `provisioner` there is no claim."""

    def __init__(
        self,
        database: database.Database,
        broker: port.BrokerPort,
        clock: Callable[[], int],
        written: Callable[[], None],
        log: structlog.stdlib.BoundLogger,
        provisioner: provisioning.Provisioner | None = None,
    ) -> None:
        self._provisioner = provisioner
        self._database = database
        self._broker = broker
        self._clock = clock
        self._written = written
        self._log = log
        self._arrived: asyncio.Queue[port.Inbound] = asyncio.Queue(_QUEUE)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive())
            while True:
                await self._take(await self._batch())

    async def _receive(self) -> None:
        async for message in self._broker.inbound:
            await self._arrived.put(message)
        raise ConnectionError("cannot serve devices: the broker sends nothing more")

    async def _batch(self) -> list[port.Inbound]:
        batch = [await self._arrived.get()]
        while len(batch) < _BATCH and not self._arrived.empty():
            batch.append(self._arrived.get_nowait())
        return batch

    async def _take(self, batch: Sequence[port.Inbound]) -> None:
        """Tries until the batch is durable: a full disk must not lose what a device was promised."""
        while True:
            try:
                replies = await asyncio.to_thread(self._write, batch)
                break
            except sqlalchemy.exc.OperationalError as error:
                self._log.error("requests.delayed", waiting=len(batch), why=str(error.orig), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
        self._written()
        if replies and self._provisioner is not None:
            self._provisioner.changed()
        for message in batch:
            message.done()
        for reply in replies:
            await self._reply(reply)

    async def _reply(self, reply: provisioning.Reply) -> None:
        try:
            await self._broker.publish(reply.topic, reply.payload, only=reply.client_id)
        except port.BrokerUnavailableError as error:
            self._log.warning("reply.lost", topic=reply.topic, client=reply.client_id, why=str(error))

    def _write(self, batch: Sequence[port.Inbound]) -> list[provisioning.Reply]:
        """Returns what is to be answered past the outbox."""
        now_ms, replies = self._clock(), []
        with self._database.begin() as tx:
            for message in batch:
                reply = self._write_one(tx, message, now_ms)
                if reply is not None:
                    replies.append(reply)
        return replies

    def _write_one(self, tx: sqlalchemy.Connection, message: port.Inbound, now_ms: int) -> provisioning.Reply | None:
        try:
            with tx.begin_nested():
                if self._provisioner is not None and message.topic.startswith(port.CONFIDENTIAL):
                    return self._provisioner.handle(tx, message, now_ms)
                dropped = handle(tx, message.topic, message.payload, now_ms)
        except sqlalchemy.exc.OperationalError:
            raise  # the database's fault, not the message's
        except Exception as error:  # a fault of ours in one request must not stop all devices
            self._log.error("request.failed", topic=message.topic, client=message.client_id, exc_info=error)
            return None
        if dropped:
            self._log.info("request.dropped", topic=message.topic, client=message.client_id, why=dropped)
        return None


def handle(tx: sqlalchemy.Connection, topic: str, payload: bytes, now_ms: int) -> str:
    """Takes one message of a device; answers go to the outbox. Returns why nothing was done, or ""."""
    match topic.split("/"):
        case ["$aws", "things", thing, "jobs", *rest]:
            jobs.handle(tx, thing, rest, payload, now_ms)
        case ["$aws", "things", thing, "shadow", *rest]:
            shadows.handle(tx, thing, rest, payload, now_ms)
        case ["$aws", "things", thing, "greengrassv2", "health", "json"]:
            return fleet_status.handle(tx, thing, payload, now_ms)
        case ["$aws", "events", "presence", "connected", client_id]:
            jobs.connected(tx, client_id, now_ms)
        case ["$aws", "events", "presence", "disconnected", _]:
            pass
        case _:
            return "no service is on this topic"
    return ""
