"""Segments of System V that stay attached: read rightly, let go when removed or unused, never beyond the bounds."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Iterator

import agent_shared
import agent_sysv
import pytest

from tests.components import parts

LIMIT = 1024 * 1024
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
libc.shmdt.argtypes = (ctypes.c_void_p,)


class Owner:
    """Who made a segment and stays attached to it."""

    def __init__(self, data: bytes) -> None:
        self.identity = libc.shmget(0, len(data), 0o1600)
        self._address = libc.shmat(self.identity, None, 0)
        self.write(data)
        self.allow(0o400)

    def write(self, data: bytes) -> None:
        ctypes.memmove(self._address, data, len(data))

    def allow(self, mode: int) -> None:
        status = ctypes.create_string_buffer(512)
        libc.shmctl(self.identity, 2, status)
        struct.pack_into("=H", status, 20, mode)
        assert libc.shmctl(self.identity, 1, status) == 0

    def remove(self) -> None:
        libc.shmctl(self.identity, 0, None)

    def leave(self) -> None:
        if self._address:
            libc.shmdt(self._address)
            self._address = None

    def exists(self) -> bool:
        return libc.shmctl(self.identity, 2, ctypes.create_string_buffer(512)) == 0


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner(b"first" * 1000)
    yield made
    made.remove()
    made.leave()


@pytest.fixture
def segments() -> agent_sysv.Segments:
    return agent_sysv.Segments()


def test_read_when_the_owner_writes_again_then_the_new_bytes_and_the_old_ones_stay(
    segments: agent_sysv.Segments, owner: Owner
) -> None:
    before = segments.read(owner.identity, 0, 5, LIMIT)
    owner.write(b"other")

    after = segments.read(owner.identity, 0, 5, LIMIT)

    assert (bytes(before), bytes(after)) == (b"first", b"other")
    assert segments.attached() == [owner.identity]


def test_read_when_the_owner_may_write_again_then_refused_though_attached(
    segments: agent_sysv.Segments, owner: Owner
) -> None:
    segments.read(owner.identity, 0, 5, LIMIT)
    owner.allow(0o600)

    with pytest.raises(agent_sysv.SegmentError, match="mode 0600"):
        segments.read(owner.identity, 0, 5, LIMIT)

    owner.allow(0o400)
    assert bytes(segments.read(owner.identity, 5, 5, LIMIT)) == b"first"


@pytest.mark.parametrize(("offset", "size"), [(0, 5001), (5001, 0), (2**64 - 5, 5), (4999, 2), (0, 2**63)])
def test_read_when_it_is_attached_then_its_bounds_hold(
    segments: agent_sysv.Segments, owner: Owner, offset: int, size: int
) -> None:
    segments.read(owner.identity, 0, 5, LIMIT)

    with pytest.raises(agent_sysv.SegmentError, match="are not in the segment"):
        segments.read(owner.identity, offset, size, LIMIT)


def test_segment_when_removed_while_its_owner_uses_it_then_read_and_not_kept(
    segments: agent_sysv.Segments, owner: Owner
) -> None:
    segments.read(owner.identity, 0, 5, LIMIT)
    owner.remove()

    for _ in range(2):
        assert bytes(segments.read(owner.identity, 0, 5, LIMIT)) == b"first"
        assert segments.attached() == []


def test_segment_when_its_owner_is_gone_then_none_and_its_memory_is_given_back(
    segments: agent_sysv.Segments, owner: Owner
) -> None:
    segments.read(owner.identity, 0, 5, LIMIT)
    owner.remove()
    owner.leave()

    with pytest.raises(agent_sysv.SegmentError, match="there is none with this id"):
        segments.read(owner.identity, 0, 5, LIMIT)

    assert not owner.exists()


def test_segment_when_nobody_asks_any_more_then_let_go_within_a_second_or_so(
    segments: agent_sysv.Segments, owner: Owner
) -> None:
    segments.read(owner.identity, 0, 5, LIMIT)
    owner.remove()
    owner.leave()

    parts.until(lambda: not owner.exists(), "the segment to be let go")
    assert segments.attached() == []


def test_segment_when_unused_then_let_go_and_attached_again_when_asked_for(owner: Owner) -> None:
    segments = agent_sysv.Segments(unused_s=0.0)
    segments.read(owner.identity, 0, 5, LIMIT)

    parts.until(lambda: segments.attached() == [], "the segment to be let go")

    assert bytes(segments.read(owner.identity, 0, 5, LIMIT)) == b"first"


def test_segments_when_there_are_many_then_the_last_ones_stay(segments: agent_sysv.Segments) -> None:
    owners = [Owner(b"%05d" % number) for number in range(agent_sysv.KEPT + 3)]
    try:
        for number, each in enumerate(owners):
            assert bytes(segments.read(each.identity, 0, 5, LIMIT)) == b"%05d" % number

        assert segments.attached() == [each.identity for each in owners[3:]]
    finally:
        for each in owners:
            each.remove()
            each.leave()


def test_segments_when_read_by_many_threads_while_others_come_and_go_then_every_byte_is_right(
    segments: agent_sysv.Segments,
) -> None:
    owners = [Owner(b"%04d" % number * 5000) for number in range(agent_sysv.KEPT * 2)]
    wrong: list[int] = []

    def read(first: int) -> None:
        for turn in range(100):
            number = (first + turn * 5) % len(owners)
            if bytes(segments.read(owners[number].identity, 0, 0, LIMIT)) != b"%04d" % number * 5000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(parts.WAIT_S)
    for each in owners:
        each.remove()
        each.leave()

    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


def test_buffer_when_somebody_refers_to_it_then_not_given_again() -> None:
    buffers = agent_shared.Buffers(limit_bytes=100)
    first = buffers.take(40)
    first[:] = 1
    kept = first[:4]
    del first

    second = buffers.take(40)
    second[:] = 2
    third = buffers.take(100)  # above what is kept together: the older ones are their users' alone
    third[:] = 3

    assert (kept.tolist(), set(second.tolist()), buffers.take(0).nbytes) == ([1] * 4, {2}, 0)
    place = third.ctypes.data
    del third
    assert buffers.take(90).ctypes.data == place
