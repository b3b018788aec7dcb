"""Frames: layout, limits, any cutting of the stream."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.wire import eventstream

BLOCK = eventstream.string("name", "välue") + eventstream.int32(":stream-id", -7)


def test_frame_when_encoded_and_fed_then_comes_back() -> None:
    (frame,) = eventstream.Decoder().feed(eventstream.encode(BLOCK, b"payload"))

    assert frame == eventstream.Frame(BLOCK, b"payload")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (eventstream.TRUE, True),
        (eventstream.FALSE, False),
        (eventstream.INT8, -1),
        (eventstream.INT16, -300),
        (eventstream.INT32, 2**31 - 1),
        (eventstream.INT64, -(2**63)),
        (eventstream.BYTES, b"\x00\xff"),
        (eventstream.STRING, "text"),
        (eventstream.TIMESTAMP, 1_700_000_000_000),
        (eventstream.UUID, bytes(range(16))),
    ],
)
def test_header_of_every_type_when_read_then_value_and_offset(kind: int, value: bool | int | bytes | str) -> None:
    block = eventstream.string("a", "b") + eventstream.header("x", kind, value)

    _, read = eventstream.read_headers(block)

    assert (read.name, read.kind, read.value) == ("x", kind, value)
    assert block[read.offset :] == eventstream.header("x", kind, value)[5 if kind in (6, 7) else 3 :]


@pytest.mark.parametrize(
    "block",
    [
        b"\x05ab",
        b"\x01a",
        b"\x01a\x0a",
        b"\x01a\x04\x00\x00",
        b"\x01a\x07\x00\x09abc",
        b"\x01a\x07\x00\x01\xff",
        b"\x01\xff\x00",
        b"\x01a\x06\xff\xff" + bytes(65535),
        b"\x01a\x00" * 1025,
    ],
)
def test_headers_when_cut_or_wrong_then_frame_error(block: bytes) -> None:
    with pytest.raises(eventstream.FrameError):
        eventstream.read_headers(block)


@given(st.binary(max_size=80))
def test_headers_when_random_then_headers_or_frame_error(block: bytes) -> None:
    try:
        eventstream.read_headers(block)
    except eventstream.FrameError:
        return


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.lists(st.integers(1, 30), min_size=1))
def test_stream_when_cut_anywhere_then_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(eventstream.encode(BLOCK, payload) for payload in payloads)
    decoder = eventstream.Decoder()
    found = []
    at = step = 0
    while at < len(stream):
        size = cuts[step % len(cuts)]
        found += [frame.payload for frame in decoder.feed(memoryview(stream)[at : at + size])]
        at += size
        step += 1

    assert found == payloads
    assert decoder.held_bytes == 0


def test_frame_when_buffer_is_reused_then_payload_is_a_copy() -> None:
    buffer = bytearray(eventstream.encode(b"", b"first"))
    (frame,) = eventstream.Decoder().feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))

    assert frame.payload == b"first"


def _prelude(total: int, headers: int) -> bytes:
    numbers = total.to_bytes(4, "big") + headers.to_bytes(4, "big")
    return numbers + zlib.crc32(numbers).to_bytes(4, "big")


@pytest.mark.parametrize(
    "data",
    [
        _prelude(15, 0),
        _prelude(0, 0),
        _prelude(eventstream.MAX_FRAME_BYTES + 1, 0),
        _prelude(0xFFFFFFFF, 0),
        _prelude(20, 5),
        _prelude(20, 0)[:-1] + b"\x00",
        eventstream.encode(BLOCK, b"payload")[:-1] + b"\x00",
    ],
)
def test_frame_when_length_or_checksum_is_wrong_then_frame_error(data: bytes) -> None:
    with pytest.raises(eventstream.FrameError):
        list(eventstream.Decoder().feed(data))


def test_frame_when_over_a_lower_limit_then_frame_error_and_right_below_it_passes() -> None:
    data = eventstream.encode(b"", bytes(84))

    assert len(list(eventstream.Decoder(100).feed(data))) == 1
    with pytest.raises(eventstream.FrameError):
        list(eventstream.Decoder(99).feed(data))
