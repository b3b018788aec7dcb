"""What the broker keeps on disk, and what it does while the disk refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from cloud.mqtt.broker import limits
from nucleus.wire import mqtt_packets
from tests.cloud.mqtt import clients
from tests.cloud.mqtt.broker import table as tables


def rows(path: Path, name: str) -> int:
    database = sqlite3.connect(path)
    try:
        return int(database.execute(f"SELECT count(*) FROM {name}").fetchone()[0])
    finally:
        database.close()


async def test_restart_when_sessions_were_committed_then_all_is_there(tmp_path: Path, table: tables.Table) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a/#", "$share/g/b", no_local=False)
    keeper.say(mqtt_packets.Disconnect())
    publisher = table.operator("publisher")
    publisher.publish("a/x", b"1", retain=True)
    publisher.publish("a/y", b"2")
    publisher.publish("b", b"3")
    await table.commit()

    again = tables.Table(tmp_path / "broker.db")
    client = again.operator("keeper", clean_start=False, properties=tables.persistent())
    got = list(tables.published(client.said)) + client.acknowledge()
    client.subscribe("a/x")
    kept = list(tables.published(client.said))[-1]

    assert [(each.topic, each.payload) for each in got] == [("a/x", b"1"), ("a/y", b"2"), ("b", b"3")]
    assert set(again.router.sessions["keeper"].subscriptions) == {"a/#", "$share/g/b", "a/x"}
    assert (kept.topic, kept.retain) == ("a/x", True)
    again.journal.stop()
    await again.journal.run()


async def test_commit_when_messages_were_acknowledged_before_then_nothing_is_written(
    tmp_path: Path, table: tables.Table
) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("a")
    table.operator("publisher").publish("a")
    keeper.acknowledge()

    await table.commit()

    assert rows(tmp_path / "broker.db", "queue") == rows(tmp_path / "broker.db", "messages") == 0


async def test_commit_when_acknowledged_afterwards_then_rows_go(tmp_path: Path, table: tables.Table) -> None:
    for name in ("k1", "k2"):
        table.operator(name, properties=tables.persistent()).subscribe("a")
    table.operator("publisher").publish("a")
    await table.commit()
    before = rows(tmp_path / "broker.db", "messages"), rows(tmp_path / "broker.db", "queue")

    for name in ("k1", "k2"):
        session = table.router.sessions[name]
        session.acknowledge(next(iter(session.in_flight)))
    await table.commit()

    assert before == (1, 2)
    assert rows(tmp_path / "broker.db", "messages") == rows(tmp_path / "broker.db", "queue") == 0


async def test_session_when_started_clean_then_its_rows_go_and_new_ones_stay(
    tmp_path: Path, table: tables.Table
) -> None:
    keeper = table.operator("keeper", properties=tables.persistent())
    keeper.subscribe("old")
    keeper.say(mqtt_packets.Disconnect())
    table.operator("publisher").publish("old")
    await table.commit()

    table.operator("keeper", properties=tables.persistent()).subscribe("new")
    await table.commit()

    assert [rows(tmp_path / "broker.db", each) for each in ("sessions", "subscriptions", "queue", "messages")] == [
        1,
        1,
        0,
        0,
    ]


async def test_commit_when_disk_refuses_then_pubacks_are_withheld_until_it_takes(
    tmp_path: Path, table: tables.Table
) -> None:
    table.operator("keeper", properties=tables.persistent()).subscribe("a")
    publisher = table.operator("publisher")
    publisher.publish("a")
    blocker = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    table.journal._database.execute("PRAGMA busy_timeout=1")
    blocker.execute("BEGIN IMMEDIATE")

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(table.commit())
        await clients.until(lambda: table.reports, "a report of the disk")
        withheld = publisher.hear()
        blocker.execute("ROLLBACK")
    blocker.close()

    assert withheld == []
    assert publisher.hear() == [mqtt_packets.Puback(1)]
    assert "PUBACKs are withheld" in table.reports[0]


def test_file_when_made_then_only_its_owner_may_read_it(tmp_path: Path, table: tables.Table) -> None:
    assert table.around.totals == limits.Totals()
    assert (tmp_path / "broker.db").stat().st_mode & 0o777 == 0o600


async def test_restart_when_a_kept_message_is_queued_again_then_it_survives_once_more(
    tmp_path: Path, table: tables.Table
) -> None:
    table.operator("first", properties=tables.persistent()).subscribe("a")
    table.operator("publisher").publish("a", b"kept", retain=True)
    await table.commit()

    second = tables.Table(tmp_path / "broker.db")
    second.operator("late", properties=tables.persistent()).subscribe("a")
    await second.commit()
    second.journal.stop()
    await second.journal.run()
    third = tables.Table(tmp_path / "broker.db")

    assert [each.message.payload for each in third.router.sessions["late"].queue] == [b"kept"]
    third.journal.stop()
    await third.journal.run()
