"""Drains the outbox to the broker: at least once, in order for each device, different devices side by side.

A message is forgotten after the broker's PUBACK. What was sent but not yet forgotten at a crash is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import sqlalchemy
import structlog

from cloud.mqtt import bell, port
from cloud.store import database, outbox

_BATCH = 256
_RETRY_S = 0.5


class Sender:
    """One actor: `run` until cancelled; `bell` is rung after a commit that wrote messages."""

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

    async def run(self) -> None:
        while True:
            await self._bell.wait()
            batch = await self._exchange(())
            while batch:
                taken = await self._send(batch)
                if len(taken) < len(batch):
                    self._log.warning("outbox.delayed", waiting=len(batch) - len(taken), retry_s=_RETRY_S)
                    await asyncio.sleep(_RETRY_S)
                batch = await self._exchange(taken)

    async def _exchange(self, taken: Sequence[int]) -> list[outbox.Message]:
        """`_next`, again and again while the database refuses: a full disk delays messages and ends nothing."""
        while True:
            try:
                return await asyncio.to_thread(self._next, taken)
            except sqlalchemy.exc.OperationalError as error:
                self._log.error("outbox.refused", sent=len(taken), why=str(error.orig), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)

    def _next(self, taken: Sequence[int]) -> list[outbox.Message]:
        """Forgets what the broker took and reads what comes next; without anything to forget no write is made."""
        with self._database.begin() if taken else self._database.read() as tx:
            if taken:
                outbox.remove(tx, taken)
            return outbox.waiting(tx, limit=_BATCH)

    async def _send(self, batch: Sequence[outbox.Message]) -> list[int]:
        """Publishes a batch; returns the ids that the broker took."""
        lanes: dict[str, list[outbox.Message]] = {}
        for message in batch:
            lanes.setdefault(_lane(message.topic), []).append(message)
        taken: list[int] = []
        async with asyncio.TaskGroup() as group:
            for lane in lanes.values():
                group.create_task(self._send_in_order(lane, taken))
        return taken

    async def _send_in_order(self, lane: Sequence[outbox.Message], taken: list[int]) -> None:
        for message in lane:
            try:
                await self._broker.publish(message.topic, message.payload, qos=1)
            except (OSError, port.BrokerUnavailableError) as error:
                self._log.warning("outbox.not_taken", topic=message.topic, why=str(error) or type(error).__name__)
                return  # what follows for this device waits, too: order
            taken.append(message.id)


def _lane(topic: str) -> str:
    """`$aws/things/<thing>`: what must stay in order."""
    return "/".join(topic.split("/", 3)[:3])
