"""Transactions: one writer at a time, readers beside it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from cloud.store import outbox
from tests.cloud import fleet


def test_read_when_a_writer_is_busy_then_it_sees_the_state_before_it(tmp_path: Path) -> None:
    with fleet.opened(tmp_path) as store:
        with store.begin() as writer:
            outbox.put(writer, "a", b"1", 1)
            with store.read() as reader:
                assert outbox.waiting(reader, limit=10) == []

        with store.read() as reader:
            assert len(outbox.waiting(reader, limit=10)) == 1


def test_begin_when_the_block_raises_then_nothing_of_it_stays(tmp_path: Path) -> None:
    with fleet.opened(tmp_path) as store:
        with contextlib.suppress(KeyError), store.begin() as tx:
            outbox.put(tx, "a", b"1", 1)
            raise KeyError("a fault")

        with store.read() as reader:
            assert outbox.waiting(reader, limit=10) == []


def test_begin_when_many_threads_write_then_each_has_its_turn(tmp_path: Path) -> None:
    with fleet.opened(tmp_path) as store:

        def write() -> None:
            for _ in range(20):
                with store.begin() as tx:
                    outbox.put(tx, "a", b"1", 1)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with store.read() as reader:
            assert [message.id for message in outbox.waiting(reader, limit=100)] == list(range(1, 81))
