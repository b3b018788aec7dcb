"""Clients that go while the process image changes: what they sent counts, and nothing of them stays (ipc/handover.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nucleus.ipc import handover
from nucleus.wire import eventstream

from . import raw, test_handover

LEAVERS = 4


@pytest.mark.parametrize("with_deputy", [False, True], ids=["alone", "with deputy"])
async def test_client_when_it_publishes_and_closes_while_nobody_serves_then_heard_and_its_subscriptions_end(
    socket_path: Path, with_deputy: bool
) -> None:
    async with test_handover.Succession(socket_path, with_deputy=with_deputy) as succession:
        leavers = [await succession.client(test_handover.OTHER) for _ in range(LEAVERS)]
        listeners = [await succession.client() for _ in range(LEAVERS)]
        for one in listeners:
            await asyncio.to_thread(one.call, 1, "SubscribeToTopic", {"topic": "t"})
        for one in leavers:
            await asyncio.to_thread(one.call, 1, "SubscribeToConfigurationUpdate", {"keyPath": []})

        async def meanwhile() -> None:
            for number, one in enumerate(leavers):
                one.send(test_handover.publication(2, str(number)))
                one.close()

        await succession.follow(meanwhile=meanwhile)

        for one in listeners:
            heard = {test_handover.said(await test_handover.read(one)) for _ in range(LEAVERS)}
            assert heard == set(map(str, range(LEAVERS)))
        await asyncio.to_thread(listeners[0].call, 2, "GetConfiguration", {})
        async with asyncio.timeout(10):
            while len(succession.world.server._connections) > LEAVERS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert succession.world.watchers == 1  # the server's own, for policies


async def test_hold_when_a_request_waits_already_then_it_is_carried_and_nothing_more_is_read(socket_path: Path) -> None:
    async with test_handover.Succession(socket_path, with_deputy=False) as succession:
        one = await succession.client()
        connection = next(iter(succession.world.server._connections))
        connection._waiting.append(connection._owner.reader.read(_frame(1)))
        await handover.quiet([connection])

        connection.resume_writing()  # the client has made room meanwhile

        assert [message.stream_id for message in connection._waiting] == [1]
        assert not connection._transport.is_reading()
        await succession.follow()
        assert "value" in raw.body(await test_handover.read(one))


def _frame(stream_id: int) -> eventstream.Frame:
    request = raw.request(stream_id, "GetConfiguration", b'{"keyPath": []}')
    return next(iter(eventstream.Decoder().feed(request)))
