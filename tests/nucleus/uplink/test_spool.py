"""The spool: order, bounds, and what is kept while offline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from nucleus.core import errors, handover
from nucleus.host import logs
from nucleus.uplink import spool


def message(number: int, qos: int = 1, size: int = 1) -> spool.Message:
    return spool.Message(topic=f"t/{number}", payload=b"x" * size, qos=qos)


@pytest.fixture
def log(tmp_path: Path) -> logs.Log:
    return logs.Log("test", directory=tmp_path)


class Broker:
    """Answers each publish with the next of `reasons` (0 when they are used up); -1 stands for a lost connection."""

    def __init__(self, *reasons: int, expect: int) -> None:
        self.reasons = list(reasons)
        self.sent: list[str] = []
        self.enough = asyncio.Event()
        self._expect = expect

    async def send(self, one: spool.Message) -> int:
        reason = self.reasons.pop(0) if self.reasons else 0
        self.sent.append(one.topic)
        if len(self.sent) >= self._expect:
            self.enough.set()
        if reason == -1:
            raise ConnectionError("gone")
        return reason


async def pump_until(kept: spool.Spool, broker: Broker) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        pumping = group.create_task(kept.pump(broker.send))
        await broker.enough.wait()
        pumping.cancel()


async def test_put_when_offline_and_qos_0_then_refused(log: logs.Log) -> None:
    with pytest.raises(errors.NucleusError, match="offline"):
        spool.Spool(log).put(message(1, qos=0))


async def test_pump_when_online_again_then_all_in_order(log: logs.Log) -> None:
    kept, broker = spool.Spool(log), Broker(expect=3)
    for number in range(3):
        kept.put(message(number))

    kept.online(True)
    await pump_until(kept, broker)

    assert broker.sent == ["t/0", "t/1", "t/2"]


async def test_pump_when_refused_for_good_then_dropped_and_the_rest_sent(log: logs.Log) -> None:
    """aws-greengrass-nucleus issue 852: a message the broker rejects was retried for ever."""
    kept, broker = spool.Spool(log), Broker(0x87, expect=2)
    kept.put(message(1))
    kept.put(message(2))

    kept.online(True)
    await pump_until(kept, broker)

    assert broker.sent == ["t/1", "t/2"]


async def test_pump_when_quota_exceeded_then_sent_again(log: logs.Log) -> None:
    kept, broker = spool.Spool(log), Broker(0x97, expect=2)
    kept.put(message(1))

    kept.online(True)
    await pump_until(kept, broker)

    assert broker.sent == ["t/1", "t/1"]


async def test_put_when_full_then_only_qos_0_makes_room(log: logs.Log) -> None:
    kept = spool.Spool(log, max_bytes=100)
    kept.online(True)
    kept.put(message(1, qos=0, size=60))
    kept.put(message(2, qos=1, size=60))
    assert len(kept) == 1

    with pytest.raises(errors.NucleusError, match="spool is full"):
        kept.put(message(3, qos=1, size=60))


async def test_pump_when_the_connection_is_lost_in_the_middle_then_all_again_in_order(log: logs.Log) -> None:
    kept, broker = spool.Spool(log, stall_s=60.0), Broker(-1, -1, -1, expect=3)
    for number in range(3):
        kept.put(message(number))

    kept.online(True)
    await pump_until(kept, broker)
    broker.enough.clear()
    kept.online(False)
    kept.online(True)
    broker.sent.clear()
    await pump_until(kept, broker)

    assert broker.sent == ["t/0", "t/1", "t/2"]


async def test_pump_when_one_send_fails_on_a_living_connection_then_sending_goes_on(log: logs.Log) -> None:
    """A PUBACK that never came must not silence the device until its next connection."""
    kept, broker = spool.Spool(log, stall_s=0.01), Broker(-1, expect=3)
    kept.put(message(1))
    kept.put(message(2))

    kept.online(True)
    await pump_until(kept, broker)

    assert sorted(broker.sent) == ["t/1", "t/1", "t/2"]


async def test_put_when_payloads_are_empty_then_their_number_is_bounded(log: logs.Log) -> None:
    kept = spool.Spool(log)
    for number in range(spool.MAX_MESSAGES):
        kept.put(message(number, size=0))

    with pytest.raises(errors.NucleusError, match="spool is full"):
        kept.put(message(1, size=0))


async def test_carry_when_some_are_on_their_way_then_all_unconfirmed_go_on_in_order(log: logs.Log) -> None:
    kept, unanswered = spool.Spool(log), Broker(expect=1)
    answer = asyncio.Event()

    async def send(one: spool.Message) -> int:
        await unanswered.send(one)
        await answer.wait()
        return 0

    for number in range(3):
        kept.put(
            spool.Message(
                topic=f"t/{number}", payload=b"\xff", qos=1, properties={"correlationData": b"\xfe", "retain": True}
            )
        )
    kept.online(True)
    async with asyncio.TaskGroup() as group:
        pumping = group.create_task(kept.pump(send))
        await unanswered.enough.wait()
        await kept.hold(0.01)
        kept.put(message(3))
        carried = kept.carry()
        pumping.cancel()
    state = msgspec.json.decode(msgspec.json.encode(carried), type=tuple[handover.Message, ...])
    after, broker = spool.Spool(log), Broker(expect=4)
    after.take_over(state, online=True)
    after.put(message(4, qos=0))  # the connection is about to come back
    after.online(True)
    await pump_until(after, broker)

    assert [one.topic for one in state] == ["t/0", "t/1", "t/2", "t/3"]
    assert broker.sent[:4] == ["t/0", "t/1", "t/2", "t/3"]
    assert (state[0].payload, state[0].correlation, state[0].properties) == (b"\xff", b"\xfe", {"retain": True})


async def test_take_over_when_the_connection_does_not_come_back_then_qos_0_is_dropped(log: logs.Log) -> None:
    after = spool.Spool(log)
    after.take_over((), online=True)
    after.put(message(1, qos=0))

    after.online(False)

    assert len(after) == 0
    with pytest.raises(errors.NucleusError, match="offline"):
        after.put(message(2, qos=0))
