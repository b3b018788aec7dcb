"""The spool with `storageType: Disk`: what is durable when, in which order it goes, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nucleus.core import errors, handover, mqtt_settings
from nucleus.host import logs
from nucleus.store import spool as store
from nucleus.uplink import spool, spool_backlog

DISK = mqtt_settings.Settings(disk=True)
NUMBERS = [f"t/{number}" for number in range(5)]


def message(name: str | int, qos: int = 1, size: int = 1, **properties: object) -> spool.Message:
    return spool.Message(topic=f"t/{name}", payload=b"x" * size, qos=qos, properties=properties)


class Bench:
    """Spools of one folder, one after the other; `moment` is their clock. The broker takes everything unless told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = logs.Log("test", directory=folder)
        self.moment = 1000.0
        self.sent: list[spool.Message] = []
        self.reasons: list[int] = []
        self._news = asyncio.Condition()

    def made(self, settings: mqtt_settings.Settings = DISK) -> spool.Spool:
        one = spool.Spool(
            self.log, stall_s=0.001, store=store.SpoolStore(self.folder / "spool"), clock=lambda: self.moment
        )
        one.configure(settings)
        return one

    async def send(self, one: spool.Message) -> int:
        async with self._news:
            reason = self.reasons.pop(0) if self.reasons else 0
            if not reason:
                self.sent.append(one)
            self._news.notify_all()
        return reason

    @contextlib.asynccontextmanager
    async def pumping(self, kept: spool.Spool) -> AsyncIterator[None]:
        """What it was told is on the disk when this ends."""
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(kept.pump(self.send))
            await asyncio.sleep(0)
            yield
            task.cancel()

    async def has_sent(self, count: int) -> list[str]:
        async with self._news:
            await self._news.wait_for(lambda: len(self.sent) >= count)
        return [one.topic for one in self.sent]

    def on_disk(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.folder / "spool" / store.FILE)) as database:
            return [row[0] for row in database.execute("SELECT topic FROM messages ORDER BY number")]

    def told(self) -> str:
        return "".join(one.read_text() for one in self.folder.glob("*.log"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_keep_when_it_returns_then_the_message_is_on_the_disk_in_its_order(bench: Bench) -> None:
    kept = bench.made()

    for number in range(5):
        await kept.keep(message(number))
        assert bench.on_disk() == NUMBERS[: number + 1]


class _OpensLater(store.SpoolStore):
    """Opens when `may_open` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.may_open = threading.Event()

    def open(self) -> tuple[store.Totals, str]:
        self.may_open.wait(10)
        return super().open()


async def test_keep_when_one_comes_in_the_moment_the_disk_is_open_then_behind_those_that_waited(bench: Bench) -> None:
    disk = _OpensLater(bench.folder / "spool")
    kept = spool.Spool(bench.log, store=disk)
    kept.configure(DISK)

    async def late() -> None:
        await kept._backlog.ready.wait()  # wakes before the first, which waits for the same since later
        await kept.keep(message("late"))

    async with asyncio.TaskGroup() as group:
        group.create_task(late())
        group.create_task(kept.keep(message("first")))
        await asyncio.sleep(0)
        disk.may_open.set()

    assert bench.on_disk() == ["t/first", "t/late"]


async def test_keep_when_many_publish_at_once_then_they_share_transactions(bench: Bench) -> None:
    kept = bench.made()
    await kept.keep(message("first"))

    async with asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(kept.keep(message(number)))

    assert bench.on_disk() == ["t/first", *(f"t/{number}" for number in range(500))]
    wal = bench.folder / "spool" / f"{store.FILE}-wal"
    with wal.open("rb") as file:
        size = int.from_bytes(file.read(32)[8:12], "big") + 24
        frames = wal.read_bytes()[32:]
    commits = sum(1 for at in range(0, len(frames), size) if frames[at + 4 : at + 8] != b"\0\0\0\0")
    assert commits < 20  # frames that end a transaction


async def test_pump_when_a_puback_comes_then_removed_and_only_then(bench: Bench) -> None:
    kept = bench.made()
    for number in range(5):
        await kept.keep(message(number))
    bench.reasons = [0x97]  # quota exceeded, for the first

    kept.online(True)
    async with bench.pumping(kept):
        assert bench.on_disk() == NUMBERS
        assert sorted(await bench.has_sent(5)) == NUMBERS

    assert bench.on_disk() == []


async def test_spool_when_the_process_ended_then_the_next_one_goes_on_in_order(bench: Bench) -> None:
    before = bench.made()
    for number in range(3):
        await before.keep(message(number, correlationData=b"\0\xff"))

    after = bench.made()
    for number in (3, 4):
        await after.keep(message(number))
    after.online(True)
    async with bench.pumping(after):
        assert await bench.has_sent(5) == NUMBERS

    assert bench.sent[0].properties == {"correlationData": b"\0\xff"}


async def test_spool_when_there_is_more_than_fits_in_memory_then_read_as_it_goes(bench: Bench) -> None:
    kept = bench.made()
    count = spool_backlog.WINDOW * 3
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(kept.keep(message(number)))
    in_memory = len(kept._backlog.waiting())

    kept.online(True)
    async with bench.pumping(kept):
        while len(bench.sent) < count:
            bench.moment += 1  # for the rate
            kept._end_pause()
            await asyncio.sleep(0)

    assert in_memory <= spool_backlog.WINDOW
    assert [one.topic for one in bench.sent] == [f"t/{number}" for number in range(count)]
    assert (len(kept), bench.on_disk()) == (0, [])
    assert kept._backlog._bytes == [0, 0]
    assert kept._backlog._counts == [0, 0]


async def test_keep_when_qos_0_then_not_on_the_disk(bench: Bench) -> None:
    kept = bench.made()
    kept.online(True)

    await kept.keep(message(1, qos=0))

    assert bench.on_disk() == []
    assert len(kept) == 1


async def test_put_when_the_nucleus_publishes_then_not_on_the_disk_and_before_components(bench: Bench) -> None:
    kept = bench.made()
    await kept.keep(message("component"))
    kept.put(message("status"))

    assert bench.on_disk() == ["t/component"]
    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(2) == ["t/status", "t/component"]


async def test_keep_when_the_disk_spool_is_full_then_refused_but_not_the_nucleus(bench: Bench) -> None:
    kept = bench.made(mqtt_settings.Settings(disk=True, spool_bytes=1000))
    await kept.keep(message(1, size=900))

    with pytest.raises(errors.NucleusError, match="the spool is full"):
        await kept.keep(message(2, size=900))
    kept.put(message("status"))

    assert bench.on_disk() == ["t/1"]


async def test_keep_when_the_disk_takes_no_more_then_refused_and_the_next_one_is_taken(bench: Bench) -> None:
    kept = bench.made()
    await kept.keep(message(0))
    database = kept._backlog._disk._store._database()  # type: ignore[union-attr]
    database.execute(f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0]}")

    with pytest.raises(errors.NucleusError, match="disk is full") as caught:
        await kept.keep(message(1, size=100_000))
    database.execute("PRAGMA max_page_count=1000000")
    await kept.keep(message(2, size=100_000))

    assert caught.value.code == "DISK_SPACE_CRITICAL"
    assert bench.on_disk() == ["t/0", "t/2"]
    assert len(kept) == 2


async def test_open_when_the_file_is_damaged_then_set_aside_told_and_used_anew(bench: Bench) -> None:
    (bench.folder / "spool").mkdir()
    (bench.folder / "spool" / store.FILE).write_bytes(b"no database" * 1000)

    await bench.made().keep(message(1))

    assert bench.on_disk() == ["t/1"]
    assert "spool.damaged" in bench.told()


async def test_keep_when_the_disk_cannot_be_used_at_all_then_in_memory_and_told(bench: Bench) -> None:
    (bench.folder / "spool").write_text("a file where the folder should be")
    kept = bench.made()

    await kept.keep(message(1))

    assert "spool.in_memory" in bench.told()
    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(1) == ["t/1"]


async def test_keep_when_the_file_breaks_meanwhile_then_goes_on_in_memory_without_loss(bench: Bench) -> None:
    kept = bench.made()
    await kept.keep(message(0))
    kept._backlog._disk._store._database().execute("DROP TABLE messages")  # type: ignore[union-attr]
    kept._backlog._disk._fail("the disk is gone")  # type: ignore[union-attr]

    await kept.keep(message(1))

    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(2) == NUMBERS[:2]


async def test_configure_when_memory_becomes_disk_then_what_waits_is_durable_and_order_stays(bench: Bench) -> None:
    kept = bench.made(mqtt_settings.Settings())
    await kept.keep(message(0))
    await kept.keep(message(1))

    kept.configure(DISK)
    await kept.keep(message(2))

    assert bench.on_disk() == NUMBERS[:3]
    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(3) == NUMBERS[:3]
    assert bench.on_disk() == []
    assert kept._backlog._bytes == [0, 0]


async def test_configure_when_disk_becomes_memory_then_what_is_on_the_disk_is_sent_first(bench: Bench) -> None:
    before = bench.made()
    await before.keep(message(0))

    after = bench.made(mqtt_settings.Settings())
    await after.keep(message(1))
    assert bench.on_disk() == ["t/0"]
    after.online(True)
    async with bench.pumping(after):
        assert await bench.has_sent(2) == NUMBERS[:2]

    assert bench.on_disk() == []


async def test_expiry_when_time_passes_in_the_spool_then_counted_down_and_dropped_in_the_end(bench: Bench) -> None:
    kept = bench.made()
    await kept.keep(message("short", messageExpiryIntervalSeconds=10))
    await kept.keep(message("long", messageExpiryIntervalSeconds=100))
    await kept.keep(message("ever"))
    bench.moment += 30

    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(2) == ["t/long", "t/ever"]

    assert bench.sent[0].properties == {"messageExpiryIntervalSeconds": 70}
    assert bench.on_disk() == []
    assert "it has expired" in bench.told()


async def test_retry_when_the_broker_never_takes_it_then_given_up_after_the_configured_attempts(bench: Bench) -> None:
    kept = bench.made(mqtt_settings.Settings(disk=True, retries=3, in_flight=1))
    await kept.keep(message(0))
    await kept.keep(message(1))
    bench.reasons = [0x97] * 4

    kept.online(True)
    async with bench.pumping(kept):
        assert await bench.has_sent(1) == ["t/1"]

    assert bench.on_disk() == []
    assert "spool.refused" in bench.told()


async def test_online_when_it_ends_then_qos_0_is_kept_only_if_configured(bench: Bench) -> None:
    for keep, left in ((True, 1), (False, 0)):
        kept = bench.made(mqtt_settings.Settings(keep_qos_0=keep))
        kept.online(True)
        await kept.keep(message(0, qos=0))

        kept.online(False)

        assert len(kept) == left
        if keep:
            await kept.keep(message(1, qos=0))


async def test_keep_when_it_is_larger_than_allowed_then_refused(bench: Bench) -> None:
    with pytest.raises(errors.NucleusError, match="maxMessageSizeInBytes, 131072"):
        await bench.made().keep(message(1, size=131_073))


async def test_carry_when_on_disk_then_only_what_is_in_memory_travels(bench: Bench) -> None:
    before = bench.made(mqtt_settings.Settings(disk=True, keep_qos_0=True))
    await before.keep(message(0))
    await before.keep(message(1, qos=0, messageExpiryIntervalSeconds=50))
    await before.keep(message(2))
    before.put(message("status"))
    await before.hold(5)
    carried = handover.Uplink(messages=before.carry())

    after = bench.made(mqtt_settings.Settings(disk=True, keep_qos_0=True))
    after.take_over(carried.messages, online=True)
    bench.moment += 20
    after.online(True)
    async with bench.pumping(after):
        assert await bench.has_sent(4) == ["t/status", *NUMBERS[:3]]

    assert [one.topic for one in carried.messages] == ["t/status", "t/1"]
    assert bench.sent[2].properties == {"messageExpiryIntervalSeconds": 30}


async def test_pump_when_there_is_much_then_a_hundred_in_a_second(bench: Bench) -> None:
    kept = bench.made(mqtt_settings.Settings(in_flight=100))
    for number in range(250):
        await kept.keep(message(number))

    kept.online(True)
    async with bench.pumping(kept):
        await bench.has_sent(100)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(bench.sent) == 100
        bench.moment += 1
        kept._end_pause()
        await bench.has_sent(200)
